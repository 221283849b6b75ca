"""What a model said to each row, and what became of it: graded, and kept in predictions.jsonl."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.data.pool_files import quoted, read_jsonl
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.response_programs import ProgramRun
from s2l_jax.evaluation.grading.answer_types import find_answer_type
from s2l_jax.evaluation.grading.grader import Grader
from s2l_jax.evaluation.grading.references import say_sentences

PREDICTIONS = "predictions.jsonl"


@dataclasses.dataclass(frozen=True)
class Response:
    """What a model said to one prompt."""

    prompt: str
    text: str
    shots: int  # solved examples in the prompt
    program: ProgramRun | None = None  # where it is a program and was run
    likelihoods: tuple[float, ...] = ()  # log-likelihoods of the choices it is the likeliest of


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
    answer: str  # extracted from the response, or from what its program printed; "" where not graded
    reference: str
    expected: str  # extracted from the reference
    correct: bool | None  # None: not graded
    reason: str
    loss: float | None  # of the reference response, nats a token; None if it has none
    likelihoods: tuple[float, ...] = ()  # of the row's choices, in nats, where the response is one of them

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Prediction":
        """What `as_json` gave."""
        fields: dict[str, Any] = {f.name: value.get(f.name) for f in dataclasses.fields(cls)}
        fields["likelihoods"] = tuple(fields["likelihoods"] or ())
        if program := fields["program"]:
            fields["program"] = ProgramRun(**program)
        if attempt := fields["attempt"]:
            inner = attempt["program"]
            read = {
                "program": ProgramRun(**inner) if inner else None,
                "likelihoods": (),
            }  # programs have none
            fields["attempt"] = Response(**attempt | read)
        return cls(**fields)


def read_predictions(path: epath.PathLike) -> list[Prediction]:
    """The rows of a predictions file; of one from elsewhere those fields that it has.

    Raises:
      InputError: a row that is not a JSON object, or lacks `response` or `reference` as text.
    """
    predictions = []
    for index, raw in enumerate(read_jsonl(str(path))):
        row = raw.value
        if raw.problem or not isinstance(row, dict):
            raise InputError(f"{raw.place}: {raw.problem or 'is not a JSON object'}.")
        for field in ("response", "reference"):
            if not isinstance(row.get(field), str):
                raise InputError(
                    f'{raw.place}: its "{field}" is {row.get(field)!r}, and must be text; the row has '
                    f"{quoted(row)}."
                )
        defaults = {"id": index, "source": "all", "level": "", "type": "", "prompt": "", "shots": 0}
        predictions.append(Prediction.from_json(defaults | row))
    if not predictions:
        raise InputError(f"{path} has no rows.")
    return predictions


def write_predictions(path: epath.Path, predictions: Sequence[Prediction]) -> None:
    """Write a predictions file, whole or not at all."""
    artifacts.write_text(path, "".join(json.dumps(each.as_json()) + "\n" for each in predictions))


def needs_text(response: Response) -> bool:
    """Whether a program that was asked for gave no answer, so that a worked answer is asked for instead.

    A response without a program is an answer already (as in MAmmoTH's protocol), unless it is blank.
    """
    if response.program is None:
        return not response.text.strip()
    return bool(response.program.error)


def graded(predictions: Sequence[Prediction], answer_type: str) -> list[Prediction]:
    """The predictions with verdicts, by an answer type's name; what a program printed stands for its text."""
    printed = find_answer_type(answer_type).printed
    texts = [_graded_text(p.response, p.program, printed) for p in predictions]
    say_sentences(answer_type, [p.reference for p in predictions])
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


def _graded_text(response: str, program: ProgramRun | None, printed: str) -> str:
    if program is None:
        return response
    return "" if program.error else printed.format(program.output.strip())
