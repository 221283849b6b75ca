"""The table of a selection, clusters.parquet: every row of the pool, and whether and why it was taken."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Int64

from s2l_jax.selection.ranking import ranks_within

if TYPE_CHECKING:
    from s2l_jax.selection.result import Selection

TABLE = "clusters.parquet"
_ROWS_AT_ONCE = 2**20
_NOT_IN_SLICE = "not in the slice that was selected from"


def write_table(
    path: epath.Path,
    selection: Selection,
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
      selection: what to write.
      trajectories: losses.
      rows: of the pool that `trajectories` are of; all if left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = len(selection.labels)
    selected, weights = np.zeros(size, bool), np.zeros(size, np.float32)
    selected[selection.indices], weights[selection.indices] = True, selection.weights
    within = None
    if selection.ranks is not None and len(selection.centroids):
        within = ranks_within(selection.labels, selection.ranks)
    place = np.arange(size)
    if trajectories is not None and rows is not None:
        place = np.full(size, -1, np.int64)
        place[rows] = np.arange(len(rows))
    words = [f"{taken}{reason}" for taken in ("left: ", "taken: ") for reason in selection.reasons]
    words = [word.removesuffix(": ") for word in words]

    def block(part: slice) -> Any:
        count = part.stop - part.start
        codes = np.zeros(count, np.int64) if selection.reason_of is None else selection.reason_of[part]
        codes = codes + len(selection.reasons) * selected[part]
        codes = np.where(selection.labels[part] < 0, len(words), codes).astype(np.int8)
        columns: dict[str, Any] = {
            "row": pa.array(np.arange(part.start, part.stop)),
            "id": pa.array(selection.ids[part]),
            "source": _optional(selection.sources, part, pa.string()),
            "cluster": pa.array(selection.labels[part].astype(np.int32)),
            "selected": pa.array(selected[part]),
            "weight": pa.array(weights[part]),
            "rank": _optional(selection.ranks, part, pa.int64()),
            "rank_in_cluster": _optional(within, part, pa.int64()),
            "score": _optional(selection.scores, part, pa.float32()),
            "reason": pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([*words, _NOT_IN_SLICE])),
            "tokens": _optional(selection.num_tokens, part, pa.int64()),
            "loss": _optional(selection.losses, part, pa.float32()),
        }
        if trajectories is not None:
            at = place[part]
            values = np.asarray(trajectories[np.maximum(at, 0)], np.float32)
            columns["losses"] = pa.FixedSizeListArray.from_arrays(
                pa.array(values.ravel()), trajectories.shape[1], mask=pa.array(at < 0)
            )
        return pa.table(columns)

    with writing(path) as file:
        starts = range(0, max(size, 1), _ROWS_AT_ONCE)
        first = block(slice(0, min(size, _ROWS_AT_ONCE)))
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for start in starts:
                table = block(slice(start, min(size, start + _ROWS_AT_ONCE))) if start else first
                writer.write_table(table)


def read_table(path: epath.Path) -> dict[str, Any]:
    """What `Selection` needs of the table: fields by name, and `weights` of all rows of the pool.

    Tables of older versions have fewer columns.
    """
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        opened = pq.ParquetFile(file)
        known = set(opened.schema_arrow.names) - {"row", "losses", "rank_in_cluster", "selected"}
        table = opened.read(columns=sorted(known))
    ranks = _column(table, "rank", -1)
    fields: dict[str, Any] = {
        "labels": table["cluster"].to_numpy(),
        "weights": table["weight"].to_numpy(),
        "ids": table["id"].to_numpy(),
        "sources": None,
        "ranks": ranks,
        "scores": _column(table, "score", np.nan),
        "num_tokens": _column(table, "tokens", -1),
        "losses": _column(table, "loss", np.nan),
    }
    if table["source"].null_count < len(table):
        names = table["source"].to_numpy()
        fields["sources"] = names.astype(str) if names.dtype == object else names
    if "reason" in table.column_names:
        fields["reasons"], fields["reason_of"] = _reasons(table["reason"].combine_chunks())
    return fields


def _reasons(column: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Reasons without what was done about them."""
    column = column.dictionary_encode() if not hasattr(column, "indices") else column
    words = column.dictionary.to_pylist()
    reasons: list[str] = []
    code_of = []
    for word in words:
        reason = word.removeprefix("left").removeprefix("taken").removeprefix(": ")
        reason = reasons[0] if word == _NOT_IN_SLICE and reasons else reason
        if reason not in reasons:
            reasons.append(reason)
        code_of.append(reasons.index(reason))
    return tuple(reasons), np.array(code_of, np.int8)[column.indices.to_numpy()]


def _optional(values: np.ndarray | None, part: slice, kind: Any) -> Any:
    import pyarrow as pa

    if values is None:
        return pa.nulls(part.stop - part.start, kind)
    if values.dtype.kind == "U":
        return pa.array(values[part])
    if values.dtype.kind == "f":
        return pa.array(values[part].astype(np.float32), mask=np.isnan(values[part]))
    own = values[part]
    unknown: Bool[np.ndarray, "_"] = own < 0
    return pa.array(own, mask=unknown) if unknown.any() else pa.array(own)


def _column(table: Any, name: str, missing: float) -> np.ndarray | None:
    import pyarrow.compute as pc

    if name not in table.column_names or table[name].null_count == len(table):
        return None
    return pc.fill_null(table[name], missing).to_numpy()


@contextlib.contextmanager
def writing(path: epath.Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write in that takes its name at the end, so that a reader never sees a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open(mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
