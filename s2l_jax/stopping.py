"""Signals that end a run: at once, or while a model trains after a step and its checkpoint."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from s2l_jax.console import tell

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.05  # seconds until a signal that was ignored comes again
_unraisable_before = sys.unraisablehook
_waits = False  # whether what runs looks at `told`, and ends by itself
_told = 0  # the signal that came, here or to another process
_signalled = False  # whether one came here


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; like Ctrl-C it is no error that anything recovers from."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def listen() -> None:
    """Have signals raise `Stopped` in the main thread; those that are ignored, as under nohup, stay so."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    if sys.unraisablehook is not _on_unraisable:
        global _unraisable_before
        _unraisable_before, sys.unraisablehook = sys.unraisablehook, _on_unraisable


def leave() -> None:
    """Have signals end what remains of a process as they end any: it has said what there is to say."""
    for number in _SIGNALS:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)


MEMBER = "S2L_JAX_MEMBER"  # in the environment of a process that is to end with the one that started it


def end_with_parent() -> None:
    """End at once when the process that started this one, with a pipe as its input, is gone."""
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(128 + signal.SIGHUP)


@contextlib.contextmanager
def after_this_step() -> Iterator[None]:
    """Within it the first signal raises nothing: what runs looks at `told`; the end raises `Stopped`."""
    global _told, _signalled
    try:
        with _waiting(True):
            yield
        if _told:
            raise Stopped(_told)
    finally:
        _told, _signalled = 0, False


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """For what takes long within `after_this_step`: signals raise `Stopped` where it is."""
    with _waiting(False):
        yield


def told() -> int:
    """The signal that is waiting for the end of `after_this_step`, or 0."""
    return _told


def take(number: int) -> None:
    """Have the end of `after_this_step` be for a signal that another process got."""
    global _told
    _told = number


@contextlib.contextmanager
def _waiting(waits: bool) -> Iterator[None]:
    global _waits
    before, _waits = _waits, waits
    try:
        yield
    finally:
        _waits = before


def _on_unraisable(unraisable: Any) -> None:
    """A signal that came in a callback of the garbage collector, say, was ignored there: it comes again."""
    if isinstance(unraisable.exc_value, Stopped):
        again = threading.Timer(_AGAIN, os.kill, (os.getpid(), unraisable.exc_value.number))
        again.daemon = True
        again.start()
    else:
        _unraisable_before(unraisable)


def _on_signal(number: int, frame: Any) -> None:
    global _told, _signalled
    # Where all processes are signalled, another's may have been heard of before: this is no second one.
    if _waits and not _signalled:
        _told, _signalled = _told or number, True
        tell("ending after this step, with a checkpoint; a second signal ends it at once")
        return
    raise Stopped(number)
