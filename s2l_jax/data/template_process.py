"""Chat templates are programs that come with a tokeniser: they are rendered in a process with limits."""

import atexit
import json
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

_SERVER = pathlib.Path(__file__).with_name("template_server.py")
SECONDS = 10.0  # of processor time for one rendering; real ones take a millisecond


class TemplateError(Exception):
    """Why a template gave no text."""


def render_template(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, Any],
) -> str:
    """What a template makes of messages, as `apply_chat_template` of transformers does it.

    Args:
      template: in Jinja.
      messages: of role and content.
      tools: schemas of functions.
      variables: further ones that the template may look at, special tokens among them.

    Raises:
      TemplateError: what the template raised, or that it passed the limits on time or memory.
    """
    request = {
        "template": template,
        "messages": messages,
        "tools": list(tools),
        "variables": variables,
        "seconds": SECONDS,
    }
    answer = _process.ask(request)
    if "error" in answer:
        raise TemplateError(answer["error"])
    return answer["text"]


class _Process:
    """The process, started when it is first needed and again after it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen | None = None

    def ask(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Its answer to one request."""
        line = json.dumps(request, default=str).encode() + b"\n"
        with self._lock:
            if self._running is None:
                self._running = self._start()
            running = self._running
            assert running.stdin is not None
            assert running.stdout is not None
            try:
                running.stdin.write(line)
                running.stdin.flush()
                answer = running.stdout.readline()
            except BrokenPipeError:
                answer = b""
            except BaseException:  # an interrupt, after which the answer would be taken for that of another
                self._stop()
                raise
            if answer:
                return json.loads(answer)
            running.wait()  # the pipe is closed: it has ended, and its status says why
            self._stop()
            return {"error": _ending(running.returncode)}

    def close(self) -> None:
        """End it, if it runs."""
        with self._lock:
            if self._running is not None:
                self._stop()

    def _start(self) -> subprocess.Popen:
        # -P: the modules beside the file are not what its imports mean. A session of its own: an interrupt at
        # the terminal is for its parent, which ends it by closing the pipe.
        return subprocess.Popen(
            [sys.executable, "-P", str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _stop(self) -> None:
        assert self._running is not None
        running, self._running = self._running, None
        running.kill()
        running.communicate()


def _ending(status: int) -> str:
    if status == -signal.SIGPROF:
        return f"Timeout: rendering took more than {SECONDS:g} s of processor time"
    return f"the process that renders templates ended with status {status}"


_process = _Process()
atexit.register(_process.close)
