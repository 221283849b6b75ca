"""The exceptions whose messages are meant for the person at the keyboard."""

import difflib
from collections.abc import Iterable

from s2l_jax.console import harmless


class _Said(Exception):
    """What an exception says, fit for a terminal, whatever names of files, fields and rows are in it."""

    def __init__(self, message: object):
        super().__init__(harmless(str(message)))


class InputError(_Said, ValueError):
    """Bad input or configuration: the message names what was wrong, the value met, and the fix.

    `launch.py` prints it without a traceback and exits with status 2.
    """


class DivergedError(_Said, RuntimeError):
    """Training, a sweep or an evaluation met a number that is not finite; the last good checkpoint is kept.

    `launch.py` prints it without a traceback and exits with status 3.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a name that is not known, or `.` where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
