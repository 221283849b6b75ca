"""Comparing expressions in a confined child that is replaced when one takes too long or kills it."""

import contextlib
import os
import signal
from typing import Any, NoReturn

from s2l_jax.evaluation.sandbox import confine, equivalence, frames, scratch

_MEMORY = 2 * 2**30  # bytes of address space
_FOREVER = 10**6  # seconds of CPU time: the server watches the clock


class ExpressionChild:
    """Answers requests through a child that lives on from one to the next.

    Args:
      limits: see `confine.give_up_everything`.
    """

    def __init__(self, limits: dict[str, Any]) -> None:
        self._limits = limits
        self._child: tuple[int, int, int] | None = None  # process, pipe to it, pipe from it
        equivalence.warm_up()
        scratch.make(limits["writable"][0])

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """`equal` and `reason` of a request with `answer`, `expected` and `timeout`."""
        if self._child is None:
            self._child = self._start()
        _, to_child, from_child = self._child
        try:
            frames.send(to_child, request)
            return frames.receive(from_child, request["timeout"])
        except frames.TimedOutError:
            reason = "timed out"
        except frames.ClosedError:
            reason = "the comparison crashed"
        self._end()
        return {"equal": False, "reason": reason}

    def _start(self) -> tuple[int, int, int]:
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        child = os.fork()
        if child == 0:
            _serve(child_in, child_out, self._limits)
        os.close(child_in)
        os.close(child_out)
        return child, to_child, from_child

    def _end(self) -> None:
        assert self._child is not None
        child, to_child, from_child = self._child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(to_child)
        os.close(from_child)
        self._child = None


def _serve(child_in: int, child_out: int, limits: dict[str, Any]) -> NoReturn:
    """In the child: confine it and answer until the server is gone."""
    with contextlib.suppress(BaseException):
        os.setsid()
        _close_all_but(child_in, child_out)
        confine.give_up_everything(**limits, seconds=_FOREVER, memory=_MEMORY)
        while True:
            request = frames.receive(child_in)
            equal, reason = equivalence.compare(request["answer"], request["expected"])
            frames.send(child_out, {"equal": equal, "reason": reason})
    os._exit(1)


def _close_all_but(*kept: int) -> None:
    for fd in range(3, 64):
        if fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)
