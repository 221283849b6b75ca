"""The table of a selection, clusters.parquet: every row of the pool, and whether and why it was taken."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int, Int64

from s2l_jax import artifacts
from s2l_jax.selection.suspects import LEFT_OUT

_KINDS = {
    "id": "uint64",
    "source": "string",
    "cluster": "int32",
    "selected": "bool",
    "weight": "float32",
    "rank": "int64",
    "rank_in_cluster": "int64",
    "score": "float32",
    "reason": "int8",
    "tokens": "int64",
    "loss": "float32",
}
_UNKNOWN = {"int64": -1, "float32": np.nan}  # what stands for null in arrays of a kind
_ROWS_AT_ONCE = 2**20
_NOT_IN_SLICE = "not in the slice that was selected from"


def write_table(
    path: epath.PathLike,
    columns: Mapping[str, Any],
    reasons: tuple[str, ...],
    trajectories: Float[np.ndarray, "s t"] | None = None,
    rows: Int64[np.ndarray, " s"] | None = None,
) -> None:
    """Write one line per row of the pool, a million at a time.

    Columns: `row`, `id`, `source`, `cluster` (-1 outside of the slice that was selected from),
    `selected`, `weight` (0 where not selected), `rank` (place in the method's order, from 0),
    `rank_in_cluster` (the same among the rows of its cluster), `score`, `reason`, `tokens`, `loss` (at
    the last checkpoint), and with `trajectories` `losses`, a list. Null is what is not known.

    Args:
      path: of the file, which appears when it is whole.
      columns: arrays [n] by name, all but `row` and `losses`; what is not known is None, left out, or in
        the array NaN or (`rank`, `rank_in_cluster`, `tokens`) negative.
      reasons: what decided, in words; the numbers in `columns["reason"]` stand for them.
      trajectories: losses.
      rows: of the pool that `trajectories` are of; all if left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = len(columns["cluster"])
    place = np.arange(size)
    if trajectories is not None and rows is not None:
        place = np.full(size, -1, np.int64)
        place[rows] = np.arange(len(rows))
    words = [f"{taken}{reason}" for taken in ("left: ", "taken: ") for reason in reasons]
    words = [*(word.removesuffix(": ") for word in words), _NOT_IN_SLICE]

    left_out = [code for code, reason in enumerate(reasons) if reason in LEFT_OUT]

    def block(part: slice) -> Any:
        made = {"row": pa.array(np.arange(part.start, part.stop))}
        made |= {name: _array(name, columns.get(name), part) for name in _KINDS}
        given = columns["reason"]
        codes = np.zeros(part.stop - part.start, np.int64) if given is None else given[part]
        not_in_slice = (columns["cluster"][part] < 0) & ~np.isin(codes, left_out)
        codes = codes + len(reasons) * columns["selected"][part]
        codes = np.where(not_in_slice, len(words) - 1, codes).astype(np.int8)
        made["reason"] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words))
        if trajectories is not None:
            at = place[part]
            values = np.asarray(trajectories[np.maximum(at, 0)], np.float32)
            made["losses"] = pa.FixedSizeListArray.from_arrays(
                pa.array(values.ravel()), trajectories.shape[1], mask=pa.array(at < 0)
            )
        return pa.table(made)

    first = block(slice(0, min(size, _ROWS_AT_ONCE)))
    with (
        artifacts.writing(path) as file,
        pq.ParquetWriter(str(file), first.schema, compression="zstd") as writer,
    ):
        writer.write_table(first)
        for start in range(_ROWS_AT_ONCE, size, _ROWS_AT_ONCE):
            writer.write_table(block(slice(start, min(size, start + _ROWS_AT_ONCE))))


def read_table(path: epath.Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The columns and reasons that `write_table` was given; `selected` and `rank_in_cluster` are left out."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = [name for name in _KINDS if name not in ("selected", "rank_in_cluster")]
    with path.open("rb") as file:
        table = pq.ParquetFile(file).read(columns=names)
    columns: dict[str, Any] = dict.fromkeys(names)
    for name in names:
        column = table[name]
        if name in ("source", "reason") or column.null_count == len(column):
            continue
        unknown = _UNKNOWN.get(_KINDS[name])
        columns[name] = (column if unknown is None else pc.fill_null(column, unknown)).to_numpy()
    if table["source"].null_count < len(table):
        sources = table["source"].to_numpy()
        columns["source"] = sources.astype(str) if sources.dtype == object else sources
    columns["reason"], reasons = _reasons(table["reason"].combine_chunks())
    return columns, reasons


def _reasons(column: Any) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Reasons without what was done about them."""
    reasons: list[str] = []
    code_of = []
    for word in column.dictionary.to_pylist():
        reason = word.removeprefix("left").removeprefix("taken").removeprefix(": ")
        reason = reasons[0] if word == _NOT_IN_SLICE else reason
        if reason not in reasons:
            reasons.append(reason)
        code_of.append(reasons.index(reason))
    return np.array(code_of, np.int8)[column.indices.to_numpy()], tuple(reasons)


def _array(name: str, values: np.ndarray | None, part: slice) -> Any:
    import pyarrow as pa

    kind = _KINDS[name]
    if values is None:
        return pa.nulls(part.stop - part.start, pa.type_for_alias(kind))
    own, unknown = values[part], None
    if kind in _UNKNOWN:
        unknown = np.isnan(own) if own.dtype.kind == "f" else own < 0
    return pa.array(own, kind if name != "source" else None, mask=unknown)  # sources may be numbers
