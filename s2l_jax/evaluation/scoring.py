"""From responses to verdicts: programs run, answers graded."""

import dataclasses
from collections.abc import Sequence

from s2l_jax.evaluation.execution.response_programs import ProgramRun
from s2l_jax.evaluation.grading.grader import Grader
from s2l_jax.evaluation.predictions import Prediction, Response


def needs_text(response: Response) -> bool:
    """Whether a program that was asked for gave no answer, so that a worked answer is asked for instead.

    A response without a program is an answer already (as in MAmmoTH's protocol), unless it is blank.
    """
    if response.program is None:
        return not response.text.strip()
    return bool(response.program.error)


def graded(predictions: Sequence[Prediction], answer_type: str) -> list[Prediction]:
    """The predictions with verdicts; what a program printed stands for its text.

    Args:
      predictions: graded or not.
      answer_type: see `grading.answer_types`.
    """
    texts = [_graded_text(p.response, p.program) for p in predictions]
    with Grader() as grader:
        verdicts = grader.grade(answer_type, texts, [p.reference for p in predictions])
    scored = []
    for p, verdict in zip(predictions, verdicts, strict=True):
        found = dataclasses.asdict(verdict)
        if p.program is not None and p.program.error:
            found |= {"correct": False, "reason": f"its program failed: {p.program.error}"}
        elif p.program is not None:
            found["reason"] = f"its program's output: {verdict.reason}"
        scored.append(dataclasses.replace(p, **found))
    return scored


def _graded_text(response: str, program: ProgramRun | None) -> str:
    if program is None:
        return response
    return "" if program.error else f"The answer is {program.output.strip()}"
