"""The warm child process: it forks a confined child for each program, or one for many calls of a function."""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import site
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from s2l_jax.evaluation.sandbox import confine, equivalence, extraction, frames, linux, program, scratch
from s2l_jax.evaluation.sandbox.calls import Calls

_KEPT_OF_ERROR = 2000  # bytes, from the end
_LOOK_EVERY = 0.02  # seconds between looks at what a running program has made
_MOST_THREADS = 256
_KILL_SECONDS = 5.0  # for what an unconfined program left behind


def main(library: Sequence[str]) -> None:
    """Serve the parent until it closes the pipe; settings are JSON, the first argument.

    Settings: `kind` ("programs", "expressions" or "extraction"), `confined`, `packages` (the folders of
    those that may be imported) and `temporary` (where programs get their folder).

    Args:
      library: `sys.path` of this Python without packages.
    """
    settings = json.loads(sys.argv[1])
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_DUMPABLE, 0)  # no child may look into this process, or write to it
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # what children leave behind becomes its own
    try:
        server = _make_server(settings, library, requests)
    except (OSError, ImportError) as error:
        frames.send(answers, {"failed": f"{type(error).__name__}: {error}"})
        return
    with contextlib.closing(server), contextlib.suppress(frames.ClosedError):  # the parent is gone
        frames.send(answers, {"ready": True})
        while True:
            frames.send(answers, server.answer(frames.receive(requests)))


class _Server(Protocol):
    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What became of one request."""

    def close(self) -> None:
        """Leave nothing behind."""


def _make_server(settings: dict[str, Any], library: Sequence[str], requests: int) -> _Server:
    kind, packages = settings["kind"], settings["packages"]
    for package in packages:
        importlib.import_module(os.path.basename(package))
    if kind == "programs":
        program.warm_up()
    elif kind == "expressions":
        equivalence.warm_up()
    sys.path[:] = library  # what is imported stays so, with its parts; nothing else is found
    site.setquit()  # `exit()`, which a Python without packages lacks
    gc.collect()
    gc.freeze()  # what is imported stays shared with the children
    if kind == "programs":
        scratch.clear(settings["temporary"])
        return _Programs(settings, library, requests)
    function = equivalence.compare if kind == "expressions" else extraction.extract_program
    return Calls(function, confine.make_ruleset(library, packages) if settings["confined"] else None)


class _Programs:
    """Runs each program in a fork of this process, in an empty folder."""

    def __init__(self, settings: dict[str, Any], library: Sequence[str], requests: int) -> None:
        self._settings, self._library, self._requests = settings, library, requests
        self._open_folder()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._run(request)
        finally:
            if not self._scratch.empty():
                self._scratch.leave()
                self._open_folder()

    def close(self) -> None:
        self._scratch.close()

    def _open_folder(self) -> None:
        self._scratch = scratch.Scratch(self._settings["temporary"])
        self._ruleset = None
        if self._settings["confined"]:
            packages, writable = self._settings["packages"], [self._scratch.path]
            self._ruleset = confine.make_ruleset(self._library, packages, writable)

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        pipes = [os.pipe(), os.pipe()]
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            _run_child(request, self._scratch.path, self._ruleset, [end for _, end in pipes])
        for _, end in pipes:
            os.close(end)
        status = None
        try:
            output, failure, status = self._watch(child, [end for end, _ in pipes], request, begun)
        finally:
            for end, _ in pipes:
                os.close(end)
            if status is None:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
            _kill_rest(child)
        failure = failure or self._scratch.excess()
        stdout, stderr = (each.decode(errors="replace") for each in output)
        return {
            "stdout": stdout,
            "ok": not failure and status == 0,
            "error": _printable(failure or _failure(os.waitstatus_to_exitcode(status), stderr)),
            "seconds": time.monotonic() - begun,
        }

    def _watch(
        self, child: int, ends: list[int], request: dict[str, Any], begun: float
    ) -> tuple[list[bytes], str, int | None]:
        """Read what a child writes until it ends or has to be killed.

        Returns its output, why it has to be killed, and the status it ended with if it did.

        Raises:
          frames.ClosedError: the parent is gone.
        """
        kept, waiting = dict.fromkeys(ends, b""), set(ends)
        poll = select.poll()
        for fd in (*ends, self._requests):
            poll.register(fd, select.POLLIN)
        failure, ended, look_at = "", 0, begun + _LOOK_EVERY
        while not failure and not ended:
            left = begun + request["timeout"] - time.monotonic()
            # A child that has closed its pipes is about to end.
            ready = {fd for fd, _ in poll.poll(1000 * max(0, min(left, _LOOK_EVERY if waiting else 0.001)))}
            if self._requests in ready:  # nothing is asked before the answer
                raise frames.ClosedError("the parent is gone")
            for end in ready:
                part = os.read(end, 2**16)
                kept[end] += part
                if not part:
                    poll.unregister(end)
                    waiting.remove(end)
            kept[ends[1]] = kept[ends[1]][-_KEPT_OF_ERROR:]
            if not ready or not waiting:
                ended, status = os.waitpid(child, os.WNOHANG)
            if len(kept[ends[0]]) > request["output"]:
                failure = f"printed more than {request['output']} bytes"
            elif not ended and left <= 0:
                failure = f"ran longer than {request['timeout']:g} s"
            elif not ended and time.monotonic() >= look_at:
                failure = _too_many_threads(child) or self._scratch.excess()
                look_at = time.monotonic() + _LOOK_EVERY
        if ended:
            for end in waiting:  # what it wrote last; a process it left behind may hold the pipe open
                os.set_blocking(end, False)
                with contextlib.suppress(BlockingIOError):
                    while len(kept[end]) <= request["output"] and (part := os.read(end, 2**16)):
                        kept[end] += part
            if len(kept[ends[0]]) > request["output"]:
                failure = f"printed more than {request['output']} bytes"
        output = [kept[ends[0]][: request["output"]], kept[ends[1]][-_KEPT_OF_ERROR:]]
        return output, failure, status if ended else None


def _too_many_threads(child: int) -> str:
    with contextlib.suppress(OSError):  # no /proc, or the child is gone
        if os.stat(f"/proc/{child}/task").st_nlink - 2 > _MOST_THREADS:
            return f"started more than {_MOST_THREADS} threads"
    return ""


def _kill_rest(child: int) -> None:
    """Kill and wait for all that an unconfined child left behind; a confined one can start nothing."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    os._exit(1)  # the parent starts another server


def _children() -> list[int]:
    """This process's children; on Linux those whose parent died are among them."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError, IndexError):
            with open(f"/proc/{name}/stat") as file:
                parent = file.read().rsplit(")", 1)[1].split()[1]
            if int(parent) == os.getpid():
                found.append(int(name))
    return found


def _run_child(request: dict[str, Any], folder: str, ruleset: int | None, ends: list[int]) -> NoReturn:
    """In the child: confine it and run the program."""
    try:
        os.setsid()
        for fd, end in enumerate(ends, start=1):
            os.dup2(end, fd)
        frames.close_all_but(ruleset)
        os.chdir(folder)
        confine.give_up_everything(ruleset, seconds=request["timeout"], memory=request["memory"])
    except BaseException as error:
        os.write(2, f"the program could not be confined: {error}".encode())
        os._exit(1)
    program.run_as_child(request["code"])


def _failure(exit_code: int, stderr: str) -> str:
    """Why a child that ended by itself is no success; empty if it is one."""
    if exit_code == 0:
        return ""
    if exit_code == -signal.SIGXCPU or exit_code == -signal.SIGKILL:
        return "used up its CPU time or memory"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else f"exited with status {exit_code}"


def _printable(text: str) -> str:
    """The text with what could steer a terminal written as Python would: \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
