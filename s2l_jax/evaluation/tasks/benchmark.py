"""What a benchmark is, and the registry that each file of `benchmarks` enters its own in.

To add one, write a file there or, for your own, anywhere that Python imports from:

    @benchmark("my_task", answer_type="number", domain="out")
    def my_task(row):
        return Parsed(text_field(row, "question"), text_field(row, "answer"))
"""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from s2l_jax.data.pool import PoolRow
from s2l_jax.data.pool_fields import BadRow, field_text
from s2l_jax.data.pool_files import quoted
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.tested_programs import UnitTests
from s2l_jax.evaluation.grading.answer_types import find_answer_type
from s2l_jax.registry import Registry

ANSWERED_BY = ("text", "choices", "tests")
_PROGRAM = "{question} Let's write a program."  # as MathInstruct's program rows and MAmmoTH's evaluation ask


Row = dict[str, Any]  # of a benchmark's file, as it came


class Exemplar(NamedTuple):
    """A solved example for few-shot prompts: a question with a worked answer and a program ("" for none)."""

    question: str
    text: str
    program: str


@dataclasses.dataclass(frozen=True)
class Problem:
    """One row of a benchmark."""

    row: PoolRow  # instruction: the question; output: the response that a model would be trained on
    reference: str  # what answers are graded against
    worked: bool  # `row.output` is a solution, not just the answer
    level: str = ""  # "" where the data has none
    type: str = ""
    choices: tuple[str, ...] = ()  # responses to choose among, of a benchmark that is answered by choices
    tests: UnitTests | None = None  # of one that is answered by tests


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a benchmark's row says."""

    question: str
    reference: str
    solution: str = ""  # "" where the data has the answer alone
    level: str = ""
    type: str = ""
    choices: tuple[str, ...] = ()  # see `Problem`; the reference is one of them
    tests: UnitTests | None = None


Reader = Callable[[Row], Parsed]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's rows are, how they are read and asked, and what their answers are.

    Raises:
      InputError: a name that is no folder's, or an answer type that there is not.
    """

    name: str  # of its folder in a workdir, and of its file, without the ending, in a folder of several
    answer_type: str  # see `grading.answer_types`
    domain: str = ""  # "in": MathInstruct trains on its kind; "out"; "" for neither
    reader: Reader | None = None  # None: rows in the pool's schema
    embedded: Callable[[], Iterable[Row]] | None = None  # rows that it brings, in that schema
    size: int = 0  # rows of the published test set; 0: any number
    split: str = "test"  # of the hub's datasets
    examples_split: str = "train"  # of theirs, that solved examples are drawn from
    hub: tuple[str, ...] = ()  # datasets that together are the benchmark; NAME[SPLIT] for another split
    prompt: str = "{question}"  # the instruction that a question is put in
    program_prompt: str = _PROGRAM  # the same, asking for a program
    exemplars: tuple[Exemplar, ...] = ()
    # "text": what the model writes is graded. "choices": its answer is the likeliest of a row's choices.
    # "tests": what it writes is completed to a program and run with the row's tests.
    answered_by: str = "text"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise InputError(f"benchmark {self.name!r}: letters, digits, '-', '_' and '.' make a name.")
        find_answer_type(self.answer_type)
        if self.answered_by not in ANSWERED_BY:
            raise InputError(
                f"benchmark {self.name!r}: answered_by={self.answered_by!r}: must be one of "
                f"{', '.join(ANSWERED_BY)}."
            )


BENCHMARKS = Registry("benchmark", Benchmark, ["s2l_jax.evaluation.tasks.benchmarks"])


def benchmark(name: str, *, answer_type: str, **settings: Any) -> Callable[[Reader], Benchmark]:
    """Enters the benchmark whose rows the decorated function reads; `settings` are fields of `Benchmark`."""

    def enter(reader: Reader) -> Benchmark:
        made = Benchmark(name, answer_type, reader=reader, **settings)
        BENCHMARKS.enter(name, made)
        return made

    return enter


def text_field(row: Row, name: str, required: bool = True, strip: bool = True) -> str:
    """The text of a row's field, without the spaces around it; "" for one that may be absent and is.

    Raises:
      BadRow: it is absent or empty and may not be, or is neither text nor a number.
    """
    if required and name not in row:
        raise BadRow(f'has no field "{name}"; it has {quoted(row)}')
    text = field_text(row, "instruction", name, required)
    if required and not text.strip():
        raise BadRow(f'its "{name}" is empty')
    return text.strip() if strip else text


def question_and_answer(row: Row) -> Parsed:
    """A row with `question`, `answer` and, where there is one, `type`: MAmmoTH's files."""
    return Parsed(
        text_field(row, "question"), text_field(row, "answer"), type=text_field(row, "type", required=False)
    )
