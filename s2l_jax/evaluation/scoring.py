"""From responses to verdicts: programs run, answers graded, one record for each row."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from s2l_jax.evaluation.execution.programs import ProgramPool, extract_program
from s2l_jax.evaluation.grading.exact import exact_match, extract_answer
from s2l_jax.evaluation.grading.grader import Grader, Verdict

_KEPT_OUTPUT = 4000  # characters of what a program printed


@dataclasses.dataclass(frozen=True)
class ProgramRun:
    """A response's program and what became of it."""

    code: str
    output: str
    error: str  # "" where it ended well and printed something


@dataclasses.dataclass(frozen=True)
class Response:
    """What a model said to one prompt."""

    prompt: str
    text: str
    shots: int  # solved examples in the prompt
    program: ProgramRun | None = None  # where it is a program and was run


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One row, answered and graded: a line of predictions.jsonl."""

    id: int
    source: str
    level: str
    type: str
    prompt: str
    response: str
    shots: int
    program: ProgramRun | None
    attempt: Response | None  # the program asked for first, where it failed and `response` is in its stead
    answer: str  # extracted from the response, or from what its program printed
    reference: str
    expected: str  # extracted from the reference
    correct: bool | None  # None: not graded
    reason: str
    loss: float | None  # of the reference response, nats a token; None if it has none

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Prediction":
        """What `as_json` gave."""
        fields: dict[str, Any] = {f.name: value.get(f.name) for f in dataclasses.fields(cls)}
        if program := fields["program"]:
            fields["program"] = ProgramRun(**program)
        if attempt := fields["attempt"]:
            inner = attempt["program"]
            fields["attempt"] = Response(**attempt | {"program": ProgramRun(**inner) if inner else None})
        return cls(**fields)


def run_programs(texts: Sequence[str]) -> list[ProgramRun | None]:
    """Run the responses that are programs, in sandboxes; None for the others."""
    codes = [extract_program(text) for text in texts]
    wanted = [code for code in codes if code is not None]
    if not wanted:
        return [None] * len(texts)
    with ProgramPool() as pool:
        results = iter(pool.run(wanted))
    runs: list[ProgramRun | None] = []
    for code in codes:
        if code is None:
            runs.append(None)
            continue
        result = next(results)
        output = result.stdout[:_KEPT_OUTPUT]
        error = "" if result.ok else result.error or "it failed"
        runs.append(ProgramRun(code, output, error or ("" if output.strip() else "it printed nothing")))
    return runs


def needs_text(response: Response) -> bool:
    """Whether a program that was asked for gave no answer, so that a worked answer is asked for instead.

    A response without a program is an answer already (as in MAmmoTH's protocol), unless it is blank.
    """
    if response.program is None:
        return not response.text.strip()
    return bool(response.program.error)


def grade_responses(
    answer_type: str, responses: Sequence[Response], references: Sequence[str]
) -> list[Verdict]:
    """Grade responses against references; the output of a program stands for its text.

    Args:
      answer_type: see `grading`, or "exact" for `answers.exact_match`.
      responses: one for each reference.
      references: answers, or responses that hold them.
    """
    texts = [_graded_text(response) for response in responses]
    if answer_type == "exact":
        verdicts = [_exact(text, reference) for text, reference in zip(texts, references, strict=True)]
    else:
        with Grader() as grader:
            verdicts = grader.grade(answer_type, texts, list(references))
    return [_of_program(v, r.program) for v, r in zip(verdicts, responses, strict=True)]


def _graded_text(response: Response) -> str:
    if response.program is None:
        return response.text
    if response.program.error:
        return ""
    return f"The answer is {response.program.output.strip()}"


def _of_program(verdict: Verdict, program: ProgramRun | None) -> Verdict:
    if program is None:
        return verdict
    if program.error:
        return dataclasses.replace(verdict, correct=False, reason=f"its program failed: {program.error}")
    return dataclasses.replace(verdict, reason=f"its program's output: {verdict.reason}")


def _exact(text: str, reference: str) -> Verdict:
    same = exact_match(text, reference)
    return Verdict(
        same, extract_answer(text), extract_answer(reference), "same text" if same else "other text"
    )
