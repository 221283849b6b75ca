"""A list of pool rows that was made elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64, UInt64

from s2l_jax import artifacts, integrity
from s2l_jax.data.identity import data_identity
from s2l_jax.data.row_ids import ids_sha256
from s2l_jax.errors import InputError
from s2l_jax.features.arrays import counts, numbers
from s2l_jax.features.feature import FEATURES, Feature, SelectionContext

if TYPE_CHECKING:
    from s2l_jax.training.run import Run


INDICES, TABLE, SUMMARY = "indices.npy", "clusters.parquet", "summary.json"  # of a selection's folder
_FIX = "selection.path must be what Selection.save wrote; take it from a copy, or save it again"


class GivenRows(Feature):
    """The rows that `selection.path` names: a .npy file, or a selection's folder."""

    arrays: ClassVar = {"given_rows": counts("m"), "given_weights": numbers("m")}
    source = "set selection.path, a .npy of pool rows, or pass SelectionInputs(given_rows=...)"
    needs_pool = False  # `check` says what is missing
    splits = False

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        path = run.config.selection.path
        if not path or not run.config.pool.path:
            raise InputError("method='given' needs selection.path, a .npy of pool rows, and pool.path.")
        if not epath.Path(path).exists():
            raise InputError(f"selection.path={path!r} does not exist.")

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        return {"selection.path": data_identity(context.run.config.selection.path)}

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        path = epath.Path(context.run.config.selection.path)
        path = path / INDICES if path.is_dir() else path
        assert context.pool is not None
        given = {"given_rows": _read(path, np.asarray(context.pool.ids))}
        return given | ({} if _summary(path) is None else {"given_weights": _weights(path.parent)})


def _summary(path: epath.Path) -> dict[str, Any] | None:
    """What a selection's folder says of itself; None of a list that is in none."""
    summary = path.parent / SUMMARY
    return integrity.read_json(summary, _FIX) if path.name == INDICES and summary.exists() else None


def _read(path: epath.Path, ids: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    if not path.exists():
        raise InputError(f"selection.path: {path} does not exist.")
    size = len(ids)
    if (kept := _summary(path)) is not None:
        integrity.check(path.parent, {INDICES: kept["digests"][INDICES]}, _FIX)
        # Without a pool and without ids, rows were chosen by their numbers.
        if kept["ids_sha256"] not in (ids_sha256(ids), ids_sha256(np.arange(size, dtype=np.uint64))):
            raise InputError(
                f"{path.parent} was chosen from other rows than the pool has, where its numbers mean others: "
                "give the pool that it was chosen from, with the same pool.* fields, or select again."
            )
    indices = artifacts.read_npy(path)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(f"{path}: needs a list of whole numbers, holds {indices.dtype}{indices.shape}.")
    indices = np.asarray(indices, np.int64)
    if len(np.unique(indices)) != len(indices) or not len(indices):
        raise InputError(f"{path}: {len(indices)} rows, {len(np.unique(indices))} of them distinct.")
    if indices.min() < 0 or indices.max() >= size:
        raise InputError(f"{path}: rows {indices.min()} to {indices.max()}, but the pool has {size} rows.")
    return indices


def _weights(folder: epath.Path) -> Float32[np.ndarray, " m"]:
    """Those of a selection's rows, in order."""
    import pyarrow.parquet as pq

    kept = integrity.read_json(folder / SUMMARY, _FIX)["digests"]
    integrity.check(folder, {TABLE: kept[TABLE]}, _FIX)
    table = pq.read_table(str(artifacts.local_copy(folder, [TABLE]) / TABLE), columns=["selected", "weight"])
    return table["weight"].to_numpy()[table["selected"].to_numpy()]


FEATURES.enter("given_rows", GivenRows())
