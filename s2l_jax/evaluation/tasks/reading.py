"""The rows of benchmarks, read from files, datasets or what the package brings."""

import re
from collections.abc import Iterator

from etils import epath

from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.data.pool_fields import BadRow
from s2l_jax.data.pool_files import RawRow, shortened
from s2l_jax.data.pool_sources import find_sources
from s2l_jax.errors import InputError
from s2l_jax.evaluation.tasks.benchmark import Benchmark, Problem

HUB = "hub"  # stands for a benchmark's own datasets instead of a path
_FIELDS = FieldMap()
_DATASET_MARKS = ("state.json", "dataset_dict.json", "features.json")  # folders that are one dataset


def read_problems(
    benchmark: Benchmark, path: str, *, fields: FieldMap = _FIELDS, multi_turn: bool = False
) -> Iterator[Problem]:
    """The rows of a benchmark.

    Args:
      benchmark: which.
      path: its file (JSON Lines, JSON or Parquet, .gz too), a folder that holds it under its name, a
        dataset as in `data.pool.read_rows`, of which the benchmark's split is read, or "hub" for the
        datasets it comes from; of no account where the rows are embedded.
      fields: of rows in the pool's schema.
      multi_turn: whether such rows may be conversations of several turns.

    Raises:
      InputError: nothing there, a bad row (named with its file, number and field), or no rows.
    """
    if benchmark.embedded is not None:
        for i, raw in enumerate(benchmark.embedded()):
            texts = raw["instruction"], raw.get("input", ""), raw["output"], raw["source"]
            yield Problem(PoolRow(i, *texts, raw, f"row {i}"), raw["output"], worked=True)
    elif benchmark.reader is None:
        for row in read_rows(path, split=benchmark.split, fields=fields, multi_turn=multi_turn):
            yield Problem(row, row.output, True, _label(row, "level"), _label(row, "type"))
    else:
        yield from _own_rows(benchmark, path)


def _own_rows(benchmark: Benchmark, path: str) -> Iterator[Problem]:
    """The rows of a benchmark that has a reader."""
    index = -1
    for index, raw in enumerate(_raw_rows(benchmark, path)):
        try:
            yield _problem(benchmark, raw, index)
        except BadRow as bad:
            raise InputError(
                f"{raw.place}: {bad}. It is not a row of {benchmark.name}: check the file."
            ) from None
    if index < 0:
        raise InputError(f"{path} has no rows of {benchmark.name}; check the path and the split.")


def _label(row: PoolRow, name: str) -> str:
    value = row.original.get(name)
    return value if isinstance(value, str) else ""


def source_path(benchmark: Benchmark, path: str) -> str:
    """The file of a benchmark where `path` is a folder that holds it, else `path`, HUB too.

    Raises:
      InputError: a folder without its file.
    """
    folder = epath.Path(path)
    if path == HUB or not folder.is_dir() or any((folder / f).exists() for f in _DATASET_MARKS):
        return path
    name = benchmark.name
    file_name = re.compile(rf"(?i:{re.escape(name)})\.(?:jsonl?(?:\.gz)?|parquet)")
    folders = [inner for inner in (folder, folder / name) if inner.is_dir()]
    found = [file for inner in folders for file in sorted(inner.iterdir()) if file_name.fullmatch(file.name)]
    if not found:
        raise InputError(
            f"evaluation.path={path}: the folder has no file of {name}, such as {name}.jsonl or {name}.json; "
            f"name it by evaluation.benchmarks={name}=PATH, or take {name}=hub."
        )
    if len(found) > 1:
        shown = ", ".join(map(str, found))
        raise InputError(f"{path} has several files of {name}: {shown}; set {name}=PATH.")
    return str(found[0])


def _raw_rows(benchmark: Benchmark, path: str) -> Iterator[RawRow]:
    if path != HUB:
        for source in find_sources(source_path(benchmark, path), "auto", benchmark.split):
            yield from source()
        return
    if not benchmark.hub:
        raise InputError(
            f"{benchmark.name} is not on the hub as it is evaluated: give its file "
            f"(docs/guide/evaluation.md) as evaluation.path or {benchmark.name}=PATH."
        )
    for part in benchmark.hub:
        dataset, _, split = part.rstrip("]").partition("[")
        for source in find_sources(dataset, "hub", split or benchmark.split):
            yield from source()


def _problem(benchmark: Benchmark, raw: RawRow, index: int) -> Problem:
    if raw.problem:
        raise BadRow(raw.problem)
    if not isinstance(raw.value, dict):
        raise BadRow(f"is not a JSON object but {type(raw.value).__name__}: {shortened(raw.value)}")
    assert benchmark.reader is not None
    parsed = benchmark.reader(raw.value)
    if benchmark.answered_by == "choices" and parsed.reference not in parsed.choices:
        raise BadRow(f"its answer {parsed.reference!r} is none of its choices {list(parsed.choices)}")
    if benchmark.answered_by == "tests" and parsed.tests is None:
        raise BadRow("has no tests")
    spelt = parsed.reference if parsed.choices else f"The answer is {parsed.reference}"
    row = PoolRow(index, parsed.question, "", parsed.solution or spelt, benchmark.name, raw.value, raw.place)
    solved = bool(parsed.solution)
    return Problem(row, parsed.reference, solved, parsed.level, parsed.type, parsed.choices, parsed.tests)
