"""Reads a pool of instruction data into one schema and names the rows that do not fit it."""

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from s2l_jax.data.pool_files import RawRow, quoted, shortened
from s2l_jax.data.pool_sources import Source, find_sources
from s2l_jax.data.row_ids import RowIds, joined
from s2l_jax.errors import InputError

MAX_LISTED = 10_000  # skipped rows that are listed one by one; all are counted
_COMMON_NAMES = {
    "instruction": ("question", "prompt", "query", "problem", "findings"),
    "output": ("response", "answer", "completion", "solution", "target", "impression"),
    "id": ("uid", "index", "idx"),
}


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Which field of a row holds what; "" for none, except for instruction and output."""

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    source: str = "source"
    id: str = ""  # none: the id comes from the content


@dataclasses.dataclass(frozen=True)
class PoolRow:
    """One row of the pool."""

    id: int  # uint64, distinct within the pool
    instruction: str
    input: str  # "" where the row has none
    output: str
    source: str  # "all" where the row has none
    original: dict[str, Any]  # the row's JSON as it came
    place: str  # file and line; where there are no lines, the row's number from 1


class RowReader:
    """Iterates over the rows of a pool, reading as it goes; each iteration starts afresh.

    After an iteration `num_skipped` counts the rows left out and `skipped` lists (place, reason)
    for the first MAX_LISTED of them.

    Iterating raises InputError for a bad row under on_bad_row="error", for a pool without rows or
    with bad ones only, for two rows with one value of `fields.id`, for an input or source field
    that was set and that no row has, and for a source that cannot be read.
    """

    def __init__(
        self, sources: Sequence[Source], name: str, limit: int, fields: FieldMap, skip: bool
    ) -> None:
        self._sources = sources
        self._name = name
        self._limit = limit
        self._fields = fields
        self._skip = skip
        self.skipped: list[tuple[str, str]] = []
        self.num_skipped = 0

    def __iter__(self) -> Iterator[PoolRow]:
        self.skipped, self.num_skipped = [], 0
        ids = RowIds()
        unseen = _set_by_user(self._fields)
        num_rows = 0
        for texts, raw in self._good_rows(self._note_bad_row):
            given = texts.pop("id", None)
            content = joined(list(texts.values())) if given is None else given.encode()
            id_, repeated = ids.assign(content)
            if repeated and given is not None:
                self._refuse_repeated_id(given, raw.place)
            unseen.difference_update(raw.value)
            texts["source"] = texts["source"] or "all"
            yield PoolRow(id=id_, **texts, original=raw.value, place=raw.place)
            num_rows += 1
            if num_rows == self._limit:
                break
        if not num_rows:
            self._refuse_empty_pool()
        for field in sorted(unseen):
            raise InputError(
                f'none of the {num_rows} rows of {self._name} has the field "{field}" that fields '
                f'names; the last one has {quoted(raw.value)}; correct it, or set it to "" for none'
            )

    def _good_rows(self, on_bad_row: Callable[[str, str], None]) -> Iterator[tuple[dict[str, str], RawRow]]:
        for source in self._sources:
            for raw in source():
                try:
                    texts = _texts(raw, self._fields)
                except _BadRow as bad:
                    on_bad_row(raw.place, str(bad))
                else:
                    yield texts, raw

    def _note_bad_row(self, place: str, reason: str) -> None:
        if not self._skip:
            raise InputError(
                f"{place}: {reason}. "
                'Correct the row, or set on_bad_row="skip" to leave out and count such rows'
            )
        self.num_skipped += 1
        if len(self.skipped) < MAX_LISTED:
            self.skipped.append((place, reason))

    def _refuse_repeated_id(self, given: str, place: str) -> None:
        # The places of all rows would take too much memory: read again to find the first one.
        for texts, raw in self._good_rows(lambda *_: None):
            if raw.place == place:
                return  # another value with the same hash, which `RowIds` has told apart
            if texts["id"] == given:
                raise InputError(
                    f'{place}: its "{self._fields.id}" is {shortened(given)}, and so is that of '
                    f'{raw.place}; make them distinct, or set fields.id="" for ids from the content'
                )

    def _refuse_empty_pool(self) -> None:
        if not self.num_skipped:
            raise InputError(f"the pool {self._name} has no rows; check its path and split")
        place, reason = self.skipped[0]
        raise InputError(
            f"all {self.num_skipped} rows of {self._name} were skipped; the first, {place}: {reason}"
        )


def read_rows(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    split: str = "train",
    limit: int = 0,
    fields: FieldMap | None = None,
    on_bad_row: str = "error",
) -> RowReader:
    """Open a pool, to be read row by row; only the ids stay in memory, 11 to 32 bytes per row.

    Args:
        path: a file (remote ones such as gs:// too), several with commas between, a glob (read in
            sorted order), a directory that `datasets` saved, ORG/NAME or ORG/NAME:CONFIG on the
            hub, tfds:NAME or tfds:DIRECTORY, or "synthetic" for the embedded pool.
        format: "auto", "jsonl", "json", "parquet", "hub", "tfds" or "synthetic". Files in the first
            two may end in .gz. A json file is parsed whole, all others are streamed.
        split: of a hub, saved or TFDS dataset.
        limit: rows to read, bad ones not counted; 0 for all.
        fields: which field holds what; default `FieldMap()`.
        on_bad_row: "error" raises at the first bad row, "skip" leaves them out. Bad is a row that
            is not a JSON object, lacks the instruction, output or id field, holds anything but
            text or a number in a mapped field, or whose output is null, empty or blank. Numbers
            become their JSON text.

    Returns:
        A reader to iterate over. A row's id is the 8-byte BLAKE2b hash of its instruction, input,
        output and source, or of its `fields.id`: it stays when rows move, come or go. Rows that
        repeat a content are numbered, see `RowIds`.

    Raises:
        InputError: a value out of range or a missing file; RowReader says what iterating raises.
    """
    path, fields = os.fspath(path), fields or FieldMap()
    if on_bad_row not in ("error", "skip"):
        raise InputError(f"on_bad_row={on_bad_row!r} is not known; choose error or skip")
    if limit < 0:
        raise InputError(f"limit={limit} is negative; give a number of rows, or 0 for all")
    for role in ("instruction", "output"):
        if not getattr(fields, role):
            raise InputError(f"fields.{role} is empty; name the field that holds the {role}")
    sources = find_sources(path, format, split)
    return RowReader(sources, path or format, limit, fields, on_bad_row == "skip")


class _BadRow(Exception):
    """Why a row cannot be used."""


def _set_by_user(fields: FieldMap) -> set[str]:
    """Optional fields under another name than the default, which some row must therefore have."""
    names = {fields.input: FieldMap.input, fields.source: FieldMap.source}
    return {name for name, default in names.items() if name not in ("", default)}


def _texts(raw: RawRow, fields: FieldMap) -> dict[str, str]:
    """Instruction, input, output and source of a row, and its id where one is mapped, as text."""
    if raw.problem:
        raise _BadRow(raw.problem)
    row = raw.value
    if not isinstance(row, dict):
        raise _BadRow(f"is not a JSON object but {type(row).__name__}: {shortened(row)}")
    texts = {
        "instruction": _text(row, "instruction", fields.instruction),
        "input": _text(row, "input", fields.input, required=False),
        "output": _text(row, "output", fields.output),
        "source": _text(row, "source", fields.source, required=False),
    }
    if fields.id:
        texts["id"] = _text(row, "id", fields.id)
    if not texts["output"].strip():
        raise _BadRow(f'its response, "{fields.output}", is empty: {shortened(texts["output"])}')
    return texts


def _text(row: dict[str, Any], role: str, name: str, required: bool = True) -> str:
    value = row.get(name)
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _BadRow(f'its "{name}" has half of a surrogate pair: {shortened(value)}') from None
        return value
    if value is None:
        if not required:
            return ""
        if name in row:
            raise _BadRow(f'its "{name}" is null or NaN')
        raise _BadRow(f'has no field "{name}"; it has {quoted(row)}; {_mapping_help(row, role, name)}')
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)  # as JSON writes it
    raise _BadRow(f'its "{name}" is not text but {type(value).__name__}: {shortened(value)}')


def _mapping_help(row: dict[str, Any], role: str, name: str) -> str:
    near = difflib.get_close_matches(name, list(row), n=1)
    near += [field for field in row if field.lower() in _COMMON_NAMES[role]]
    if near:
        return f'perhaps fields.{role}="{near[0]}"'
    return f"set fields.{role} to the one that holds the {role}"
