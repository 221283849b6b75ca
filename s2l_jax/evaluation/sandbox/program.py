"""Running one program in a child that is confined already."""

import atexit
import contextlib
import os
import random
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

_NAME = "program.py"
_LONGEST_ERROR = 500  # characters


def warm_up() -> None:
    """Import what programs of calculation import, and what those packages import late."""
    import numpy
    import sympy

    numpy.random.seed(0)  # noqa: NPY002 - the generator that programs use
    numpy.linalg.solve(numpy.eye(2), numpy.ones(2))
    x, y = sympy.symbols("x y")
    sympy.solve([x + y - 3, x - y - 1], [x, y])
    sympy.solve(x**2 - 2 * x - 3, x)
    sympy.simplify(sympy.Rational(1, 3) + sympy.sqrt(8)).evalf()


def run_as_child(code: str) -> NoReturn:
    """Run Python source as `__main__` and end the process as an interpreter would.

    Threads of a program that failed are not waited for.

    The random generators are seeded, so that the same program prints the same. Of an exception that
    ends the program, its message is the last line of standard error.
    """
    random.seed(0)  # numpy's generator is as `warm_up` left it
    sys.argv[:] = [_NAME]
    module = types.ModuleType("__main__")
    module.__file__ = _NAME
    sys.modules["__main__"] = module
    atexit._clear()  # what the warm process would do at its own end
    status, error = 1, ""
    try:
        exec(compile(code, _NAME, "exec"), module.__dict__)
        status = 0
    except SystemExit as request:
        status, error = _status(request.code)
    except BaseException as raised:
        with contextlib.suppress(BaseException):
            error = traceback.format_exception_only(raised)[-1]
    if not status:
        with contextlib.suppress(BaseException):  # its threads go on to their ends
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except BaseException:
        status, error = 1, error or "what it printed could not be written"
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    line = " ".join(error.split())[:_LONGEST_ERROR]
    os.write(2, f"\n{line}".encode(errors="replace"))
    os._exit(status)


def _status(code: Any) -> tuple[int, str]:
    """Of `sys.exit(code)`, and the message of a code that is none."""
    if code is None:
        return 0, ""
    if isinstance(code, int):
        return code & 0xFF, ""
    message = ""
    with contextlib.suppress(BaseException):
        message = str(code)
    return 1, message
