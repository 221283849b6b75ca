"""The exceptions whose messages are meant for the person at the keyboard."""


class InputError(ValueError):
    """Bad input or configuration: the message names what was wrong, the value met, and the fix.

    `launch.py` prints it without a traceback and exits with status 2.
    """


class DivergedError(RuntimeError):
    """Training met a loss or gradient that is not finite; the last good checkpoint is kept.

    `launch.py` prints it without a traceback and exits with status 3.
    """
