"""Calls of one function in a confined child, which is replaced when a call takes too long or kills it."""

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from s2l_jax.evaluation.sandbox import confine, frames

_MEMORY = 2 * 2**30  # bytes of address space
_FOREVER = 10**6  # seconds of CPU time: the server watches the clock


class Calls:
    """Answers requests through a child that lives on from one to the next.

    Args:
      function: of the arguments of a request; gives what JSON can hold.
      ruleset: see `confine.give_up_everything`.
    """

    def __init__(self, function: Callable[..., Any], ruleset: int | None) -> None:
        self._function, self._ruleset = function, ruleset
        self._child: tuple[int, int, int] | None = None  # process, pipe to it, pipe from it

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """`value` of a request with `arguments` and `timeout`; `error` where there is none, or empty."""
        if self._child is None:
            self._child = self._start()
        _, to_child, from_child = self._child
        try:
            frames.send(to_child, request["arguments"])
            return {"value": frames.receive(from_child, request["timeout"]), "error": ""}
        except frames.TimedOutError:
            error = "timed out"
        except frames.ClosedError:
            error = "crashed"
        self.close()
        return {"value": None, "error": error}

    def close(self) -> None:
        """End the child."""
        if self._child is None:
            return
        child, to_child, from_child = self._child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(to_child)
        os.close(from_child)
        self._child = None

    def _start(self) -> tuple[int, int, int]:
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        child = os.fork()
        if child == 0:
            self._serve(child_in, child_out)
        os.close(child_in)
        os.close(child_out)
        return child, to_child, from_child

    def _serve(self, child_in: int, child_out: int) -> NoReturn:
        """In the child: confine it and answer until the server is gone."""
        with contextlib.suppress(BaseException):
            os.setsid()
            frames.close_all_but(child_in, child_out, self._ruleset)
            confine.give_up_everything(self._ruleset, seconds=_FOREVER, memory=_MEMORY)
            while True:
                arguments = frames.receive(child_in)
                frames.send(child_out, self._function(*arguments))
        os._exit(1)
