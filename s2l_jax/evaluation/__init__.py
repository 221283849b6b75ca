"""Evaluation: held-out loss, generated answers, and whether they are right.

Importing this package imports nothing heavy; each name below is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2l_jax.evaluation.execution.programs import ProgramResult, run_program
    from s2l_jax.evaluation.grading.grader import grade

_PLACES = {
    "ProgramResult": "s2l_jax.evaluation.execution.programs",
    "grade": "s2l_jax.evaluation.grading.grader",
    "run_program": "s2l_jax.evaluation.execution.programs",
}

__all__ = ["ProgramResult", "grade", "run_program"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
