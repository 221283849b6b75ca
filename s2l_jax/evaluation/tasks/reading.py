"""The benchmarks: for each name its data, its prompts, and what kind of answer is graded."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from s2l_jax.config.rules import nearest
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.pool_fields import BadRow, field_text
from s2l_jax.data.pool_files import RawRow, quoted, shortened
from s2l_jax.data.pool_sources import find_sources
from s2l_jax.errors import InputError

HUB = "hub"  # stands for a benchmark's own datasets instead of a path
_ENDINGS = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")
_PROGRAM = "{question} Let's write a program."  # as MathInstruct's program rows and MAmmoTH's evaluation ask


@dataclasses.dataclass(frozen=True)
class Problem:
    """One row of a benchmark."""

    row: PoolRow  # instruction: the question; output: the response that a model would be trained on
    reference: str  # what answers are graded against
    worked: bool  # `row.output` is a solution, not just the answer
    level: str = ""  # "" where the data has none
    type: str = ""


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a benchmark's row says."""

    question: str
    reference: str
    solution: str = ""  # "" where the data has the answer alone
    level: str = ""
    type: str = ""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's rows are, how they are read and asked, and what their answers are."""

    name: str
    answer_type: str  # see `grading`
    domain: str  # "in": MathInstruct trains on its kind; "out"; "" for neither
    reader: Callable[[dict[str, Any]], Parsed] | None  # None: rows in the pool's schema
    size: int = 0  # rows of the published test set; 0: any number
    split: str = "test"  # of the hub's datasets
    hub: tuple[str, ...] = ()  # datasets that together are the benchmark; NAME[SPLIT] for another split
    files: tuple[str, ...] = ()  # names, without endings, that its file may have in a folder
    prompt: str = "{question}"  # the instruction that a question is put in
    program_prompt: str = _PROGRAM  # the same, asking for a program


def benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
      InputError: there is none of that name; says which is nearest.
    """
    if name not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise InputError(f"no benchmark {name!r}{nearest(name, BENCHMARKS)} There are: {known}.")
    return BENCHMARKS[name]


def read_problems(which: Benchmark, path: str) -> Iterator[Problem]:
    """The rows of a benchmark.

    Args:
      which: one that has a reader.
      path: its file (JSON Lines, JSON or Parquet, .gz too), a folder that holds it under its name, a
        dataset as in `data.pool.read_rows`, or "hub" for the datasets it comes from.

    Raises:
      InputError: nothing there, a bad row (named with its file, number and field), or no rows.
    """
    assert which.reader is not None
    number = -1
    for number, raw in enumerate(_raw_rows(which, path)):
        try:
            yield _problem(which, raw, number)
        except BadRow as bad:
            raise InputError(
                f"{raw.place}: {bad}. It is not a row of {which.name}: check the file."
            ) from None
    if number < 0:
        raise InputError(f"{path} has no rows of {which.name}; check the path and the split.")


def source_path(which: Benchmark, path: str) -> str:
    """The file of a benchmark where `path` is a folder that holds it, else `path`.

    Raises:
      InputError: a folder without its file.
    """
    folder = epath.Path(path)
    if not folder.is_dir() or any((folder / f).exists() for f in _DATASET_MARKS):
        return path
    names = {name.lower() for name in which.files}
    found = []
    for inner in (folder, *(folder / name for name in which.files)):
        if inner.is_dir():
            found += [f for f in sorted(inner.iterdir()) if _stem(f.name).lower() in names]
    if not found:
        wanted = " or ".join(f"{name}{ending}" for name in which.files for ending in _ENDINGS[:2])
        raise InputError(
            f"evaluation.path={path}: the folder has no file of {which.name}, such as {wanted}; name it by "
            f"evaluation.benchmarks={which.name}=PATH, or take {which.name}=hub."
        )
    if len(found) > 1:
        shown = ", ".join(map(str, found))
        raise InputError(f"{path} has several files of {which.name}: {shown}; set {which.name}=PATH.")
    return str(found[0])


_DATASET_MARKS = ("state.json", "dataset_dict.json", "features.json")  # folders that are one dataset


def _stem(name: str) -> str:
    """A file name without its ending, where that is one of a table of rows; else ""."""
    return next((name[: -len(e)] for e in sorted(_ENDINGS, key=len)[::-1] if name.endswith(e)), "")


def _raw_rows(which: Benchmark, path: str) -> Iterator[RawRow]:
    if path != HUB:
        for source in find_sources(source_path(which, path), "auto", which.split):
            yield from source()
        return
    if not which.hub:
        raise InputError(
            f"{which.name} is not on the hub as it is evaluated: give its file "
            f"({which.files[0]}.json of MAmmoTH's evaluation data) as evaluation.path or {which.name}=PATH."
        )
    for part in which.hub:
        dataset, _, split = part.rstrip("]").partition("[")
        for source in find_sources(dataset, "hub", split or which.split):
            yield from source()


def _problem(which: Benchmark, raw: RawRow, number: int) -> Problem:
    if raw.problem:
        raise BadRow(raw.problem)
    if not isinstance(raw.value, dict):
        raise BadRow(f"is not a JSON object but {type(raw.value).__name__}: {shortened(raw.value)}")
    assert which.reader is not None
    parsed = which.reader(raw.value)
    response = parsed.solution or f"The answer is {parsed.reference}"
    row = PoolRow(number, parsed.question, "", response, which.name, raw.value, raw.place)
    return Problem(row, parsed.reference, bool(parsed.solution), parsed.level, parsed.type)


def _text(row: dict[str, Any], name: str, required: bool = True) -> str:
    if required and name not in row:
        raise BadRow(f'has no field "{name}"; it has {quoted(row)}')
    text = field_text(row, "instruction", name, required).strip()
    if required and not text:
        raise BadRow(f'its "{name}" is empty')
    return text


def _question_answer(row: dict[str, Any]) -> Parsed:
    return Parsed(_text(row, "question"), _text(row, "answer"), type=_text(row, "type", required=False))


def _gsm8k(row: dict[str, Any]) -> Parsed:
    answer = _text(row, "answer")
    if "####" not in answer:
        raise BadRow(f'its "answer" has no "####" before the final number: {shortened(answer)}')
    return Parsed(_text(row, "question"), answer, answer)


def _math(row: dict[str, Any]) -> Parsed:
    solution = _text(row, "solution")
    if r"\boxed" not in solution and r"\fbox" not in solution:
        raise BadRow(rf'its "solution" has no \boxed answer: {shortened(solution)}')
    level, type_ = (_text(row, name, required=False) for name in ("level", "type"))
    return Parsed(_text(row, "problem"), solution, solution, level, type_)


def _svamp(row: dict[str, Any]) -> Parsed:
    question = f"{_text(row, 'Body')} {_text(row, 'Question')}"
    return Parsed(question, _text(row, "Answer").removesuffix(".0"), type=_text(row, "Type", required=False))


_MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

BENCHMARKS = {
    each.name: each
    for each in (
        Benchmark("gsm8k", "number", "in", _gsm8k, 1319, hub=("openai/gsm8k:main",), files=("gsm8k",)),
        Benchmark(
            "math",
            "math",
            "in",
            _math,
            5000,
            hub=tuple(f"EleutherAI/hendrycks_math:{subject}" for subject in _MATH_SUBJECTS),
            files=("math",),
        ),
        Benchmark("numglue", "any", "in", _question_answer, 1042, files=("numglue",)),
        # The hub's copy has split the thousand rows; the benchmark is all of them.
        Benchmark(
            "svamp",
            "number",
            "out",
            _svamp,
            1000,
            hub=("ChilleD/SVAMP[train]", "ChilleD/SVAMP[test]"),
            files=("svamp",),
        ),
        Benchmark("mathematics", "any", "out", _question_answer, 1000, files=("mathematics",)),
        Benchmark("simuleq", "number", "out", _question_answer, 514, files=("simuleq",)),
        Benchmark("pool", "any", "", None),
        Benchmark("synthetic", "any", "", None),
    )
}
