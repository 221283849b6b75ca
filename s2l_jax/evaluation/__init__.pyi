from .execution.programs import ProgramResult, run_program
from .grading.grader import grade

__all__ = [
    "ProgramResult",
    "grade",
    "run_program",
]
