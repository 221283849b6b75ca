"""Running one program in a child that is confined already."""

import contextlib
import os
import random
import sys
import traceback
import types
from typing import Any, NoReturn

_NAME = "program.py"


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

    The random generators are seeded, so that the same program prints the same. Of an exception that
    ends the program, its message goes to standard error.
    """
    random.seed(0)  # numpy's generator is as `warm_up` left it
    sys.argv[:] = [_NAME]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    status = 1
    try:
        exec(compile(code, _NAME, "exec"), module.__dict__)
        status = 0
    except SystemExit as request:
        status = _status(request.code)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"\n{traceback.format_exception_only(error)[-1]}".encode(errors="replace"))
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        os._exit(status)
    os._exit(1)  # what it printed could not be written


def _status(code: Any) -> int:
    """Of `sys.exit(code)`; a text is an error message."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with contextlib.suppress(BaseException):
        os.write(2, str(code).encode(errors="replace"))
    return 1
