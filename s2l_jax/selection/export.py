"""The chosen rows as files that trainers read as they are."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from s2l_jax import artifacts, integrity
from s2l_jax.data.arrow_types import ArrowTypes, NoArrowType
from s2l_jax.data.pool import FieldMap, row_of
from s2l_jax.errors import InputError
from s2l_jax.selection.result import Selection

# What each export is called in a selection's folder.
FILES = {
    "jsonl": "subset.jsonl",
    "parquet": "subset.parquet",
    "messages": "messages.jsonl",
    "datasets": "dataset",
    "official": "official",
}
IN_PARQUET = ("parquet", "datasets")  # those whose fields need types
# Columns that these have beside the row's own.
ADDED = ("s2l_id", "s2l_source", "s2l_cluster", "s2l_weight")
_BATCH = 1024
_PROMPT = ("instruction", "input", "output", "source")  # what the official S2L code reads of a row

Originals = Callable[[Iterable[int]], Iterator[dict[str, Any]]]


def missing_exports(folder: epath.Path, names: Sequence[str]) -> list[str]:
    """Those of the exports that a folder does not have as they were written."""
    return [name for name in names if not _is_whole(folder, FILES[name])]


def write_exports(
    folder: epath.PathLike,
    selection: Selection,
    originals: Originals,
    names: Sequence[str],
    fields: FieldMap | None = None,
) -> None:
    """Write the chosen rows, in pool order, in each of the formats asked for.

    Args:
      originals: gives the rows of the indices it is called with, with the fields they came with.
      names: of `FILES`. "jsonl" has the rows as they came. "parquet" and "datasets" (a folder for
        `datasets.load_from_disk`) have their fields and the columns of `ADDED`. "messages" has
        conversations: `messages`, a list of {"role", "content"}, and id (text, as it may be above
        2^63), source, cluster and weight. "official" is a folder as the official S2L code has it: chosen
        rows in labeled.json and their numbers in labeled_idx.npy, all others in unlabeled.json.
      fields: which field of a row holds what, for "messages" and "official".

    Beside each export are its digests, as `sha256sum --check` reads them.

    Raises:
      InputError: a field whose values have no common type (of "parquet" and "datasets"), or that has
        a name of `ADDED`.
    """
    folder = epath.Path(folder)
    for name in names:
        path = folder / FILES[name]
        _kept(path).unlink(missing_ok=True)
        if name == "jsonl":
            write_subset(path, originals(selection.indices))
        elif name == "messages":
            write_subset(path, _conversations(selection, originals, fields or FieldMap()))
        elif name == "parquet":
            _write_parquet(path, selection, originals)
        elif name == "datasets":
            _write_dataset(path, selection, originals)
        elif name == "official":
            _write_official(path, selection, originals, fields or FieldMap())
        artifacts.write_text(_kept(path), _digests(folder, path.name))


def _is_whole(folder: epath.Path, name: str) -> bool:
    kept = _kept(folder / name)
    if not kept.exists() or not (folder / name).exists():
        return False
    return kept.read_bytes() == _digests(folder, name).encode()


def _kept(path: epath.Path) -> epath.Path:
    return path.parent / f"{path.name}.sha256"


def _digests(folder: epath.Path, name: str) -> str:
    return "".join(f"{digest}  {file}\n" for file, digest in integrity.digests(folder, [name]).items())


def write_subset(path: epath.PathLike, originals: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines; returns their number.

    Rows are written as they come; the file appears when it is whole.
    """
    count = 0
    with artifacts.writing(path) as written, written.open("w", encoding="utf-8") as file:
        for original in originals:
            file.write(json.dumps(original) + "\n")
            count += 1
    return count


def _conversations(selection: Selection, originals: Originals, fields: FieldMap) -> Iterator[dict[str, Any]]:
    for row, added in zip(originals(selection.indices), _added(selection), strict=True):
        identity, source, cluster, weight = added
        read = row_of(row, "a chosen row", fields)
        yield {
            "messages": [message._asdict() for message in read.conversation],
            **({"tools": list(read.tools)} if read.tools else {}),
            "id": str(identity),
            "source": source,
            "cluster": cluster,
            "weight": weight,
        }


def _write_official(path: epath.Path, selection: Selection, originals: Originals, fields: FieldMap) -> None:
    chosen = selection.indices
    others = np.setdiff1d(np.arange(len(selection.labels)), chosen)
    for name, rows in (("labeled.json", chosen), ("unlabeled.json", others)):
        with artifacts.writing(path / name) as written, written.open("w", encoding="utf-8") as file:
            between = "[\n"
            for row in originals(rows):
                file.write(between + json.dumps(_named_as_there(row, fields), indent=4))
                between = ",\n"
            file.write("\n]" if len(rows) else "[]")
    artifacts.write_npy(path / "labeled_idx.npy", chosen)


def _named_as_there(row: dict[str, Any], fields: FieldMap) -> dict[str, Any]:
    """A row with instruction, input, output and source under these names, and what else it has."""
    read = row_of(row, "a row of the pool", fields)
    named = {name: getattr(read, name) for name in _PROMPT if getattr(read, name)}
    return {name: value for name, value in row.items() if name not in _PROMPT} | named


def _added(selection: Selection) -> Iterator[tuple[int, str, int, float]]:
    """Id, source, cluster and weight of each chosen row."""
    for row, weight in zip(selection.indices, selection.weights, strict=True):
        source = "" if selection.sources is None else str(selection.sources[row])
        yield int(selection.ids[row]), source, int(selection.labels[row]), float(weight)


def _batches(selection: Selection, originals: Originals) -> Iterator[dict[str, list[Any]]]:
    """Columns of the chosen rows, some rows at a time; a field that a row lacks is None."""
    rows = zip(originals(selection.indices), _added(selection), strict=True)
    while batch := [row for _, row in zip(range(_BATCH), rows, strict=False)]:  # the range is asked first
        names = dict.fromkeys(name for original, _ in batch for name in original)
        columns = {name: [original.get(name) for original, _ in batch] for name in names}
        yield columns | {name: [added[i] for _, added in batch] for i, name in enumerate(ADDED)}


def _write_parquet(path: epath.Path, selection: Selection, originals: Originals) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A first pass finds the types: a field may be empty in the first thousand rows.
    found = ArrowTypes(ADDED)
    for row, original in zip(selection.indices, originals(selection.indices), strict=True):
        found.add(f"row {row} of the pool", original)
    try:
        own = found.schema()
    except NoArrowType as error:
        raise not_in_parquet(str(error)) from None
    types = (pa.uint64(), pa.string(), pa.int32(), pa.float32())
    schema = pa.schema([*own, *map(pa.field, ADDED, types)])
    with artifacts.writing(path) as file, pq.ParquetWriter(str(file), schema, compression="zstd") as writer:
        for columns in _batches(selection, originals):
            count = len(columns[ADDED[0]])
            try:
                arrays = [pa.array(columns.get(f.name, [None] * count), f.type) for f in schema]
            except pa.ArrowException as error:  # such as an integer that no float is equal to, among floats
                raise not_in_parquet(f"a field's values have no common type in Parquet ({error})") from None
            writer.write_table(pa.table(arrays, schema=schema))


def not_in_parquet(problem: str) -> InputError:
    """The error for rows that Parquet cannot have, with what `ArrowTypes` says of them."""
    return InputError(
        f"{problem}: take {' and '.join(IN_PARQUET)} out of selection.exports, or correct the rows"
    )


def _write_dataset(path: epath.Path, selection: Selection, originals: Originals) -> None:
    import datasets
    import pyarrow.parquet as pq

    path.rmtree(missing_ok=True)
    with artifacts.writing_folder(path.parent) as local:
        rows, whole = local / ".dataset.parquet", local / ".dataset.tmp"
        whole.rmtree(missing_ok=True)
        _write_parquet(rows, selection, originals)
        shown = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            with artifacts.failing_as_oserror(path):
                datasets.Dataset(pq.read_table(str(rows), memory_map=True)).save_to_disk(str(whole))
        finally:
            if shown:
                datasets.enable_progress_bars()
            rows.unlink(missing_ok=True)
        artifacts.move_folder(whole, local / path.name)
