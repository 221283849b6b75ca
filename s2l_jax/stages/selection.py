"""Stage `selection`: one subset for every entry of `selection.runs`."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64

from s2l_jax import artifacts
from s2l_jax.config import resolved_run
from s2l_jax.console import say
from s2l_jax.data.identity import data_identity
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes
from s2l_jax.records import Record
from s2l_jax.selection import METHODS, Selection, SelectionInputs, select, write_subset
from s2l_jax.stages.run import Run
from s2l_jax.stages.trajectories import tracked_rows
from s2l_jax.trajectories.load import Trajectories

_INDICES = "indices.npy"


def select_all(run: Run, pool: PreparedPool | None, trajectories: Trajectories | None) -> None:
    """Make every subset that is not there yet."""
    for name in run.config.selection.runs:
        _select_one(run, name, pool, trajectories)


def folder(run: Run, name: str) -> epath.Path:
    """Where a selection's artifacts are."""
    return run.workdir / "selection" / name


def _select_one(run: Run, name: str, pool: PreparedPool | None, trajectories: Trajectories | None) -> None:
    settings: dict[str, Any] = resolved_run(run.config, name)
    settings.pop("train_target")
    method = settings["method"]
    if method == "s2l":
        settings["min_cluster_size"] = run.config.selection.min_cluster_size
    else:
        for unused in ("num_clusters", "every"):
            settings.pop(unused)
        # Only a run that asks for it by name draws its random subset source by source.
        if method != "random" or run.config.selection.runs[name].stratify_by == "inherit":
            settings.pop("stratify_by")
    if pool is None and trajectories is None:
        raise InputError("selection needs a pool (pool.path) or trajectories (trajectories.path).")
    made_from = {}
    if pool is not None:
        made_from["pool_ids_sha256"] = hashlib.sha256(np.asarray(pool.ids).tobytes()).hexdigest()
    uses_trajectories = method in METHODS and "trajectories" in METHODS[method].needs
    if uses_trajectories and trajectories is not None:
        made_from["trajectories_sha256"] = trajectories.digest
    if method == "given":
        made_from["subset"] = data_identity(run.config.selection.path)
    record = Record(folder(run, name), f"selection/{name}", settings | made_from)
    if record.done:
        return
    if method == "given":
        selection = _given(run, pool)
    else:
        selection = _chosen(settings, pool, trajectories, uses_trajectories=uses_trajectories)
    if processes.is_writer():
        selection.save(record.folder)
        if pool is not None:
            write_subset(record.folder / "subset.jsonl", pool.originals(selection.indices))
    sizes = selection.cluster_sizes
    record.finish(
        {
            "method": selection.method,
            "budget": selection.budget,
            "size": len(selection.indices),
            "seed": selection.seed,
            "options": selection.options,
            "num_clusters": len(sizes),
            "cluster_sizes": sizes,
            "picked_per_cluster": selection.picked_per_cluster,
            "sources": {name: picked for name, (_, picked) in selection.source_counts.items()},
            "indices_sha256": hashlib.sha256(selection.indices.tobytes()).hexdigest(),
        }
        | _slice_note(selection)
    )
    say(f"selection {name}: {_described(selection)}")


def _slice_note(selection: Selection) -> dict[str, Any]:
    if selection.num_candidates == len(selection.labels):
        return {}
    return {"slice": {"size": selection.num_candidates, "pool": len(selection.labels)}}


def _described(selection: Selection) -> str:
    """One line on a selection."""
    size, candidates, pool = len(selection.indices), selection.num_candidates, len(selection.labels)
    text = f"{size} of {candidates} examples"
    if candidates < pool:
        text += f", a slice of the pool's {pool}"
        if selection.budget > candidates:
            text += f": all of it, for the budget of {selection.budget} is above it"
    count = len(selection.centroids)
    return f"{text}, {count} clusters" if count else text


def _chosen(
    settings: dict[str, Any],
    pool: PreparedPool | None,
    trajectories: Trajectories | None,
    *,
    uses_trajectories: bool,
) -> Selection:
    if pool is None:
        assert trajectories is not None
        return select(SelectionInputs(trajectories=trajectories.losses, ids=trajectories.ids), **settings)
    inputs = SelectionInputs(ids=np.asarray(pool.ids), sources=_sources(pool))
    if not uses_trajectories or trajectories is None:
        return select(inputs, **settings)
    rows = tracked_rows(trajectories, inputs.ids)
    if rows is None:
        return select(dataclasses.replace(inputs, trajectories=trajectories.losses), **settings)
    return select_from_slice(inputs, rows, trajectories.losses, settings)


def select_from_slice(
    pool: SelectionInputs,
    rows: Int64[np.ndarray, "s"],
    losses: Float32[np.ndarray, "s t"],
    settings: dict[str, Any],
) -> Selection:
    """A selection from some of the pool's rows, in terms of the pool: indices are its row numbers.

    Clusters, sources and weights are those of the slice; other rows have label -1.

    Args:
      pool: ids and sources of the whole pool.
      rows: of the slice, sorted.
      losses: their trajectories.
      settings: arguments of `select`.
    """
    assert pool.ids is not None
    assert pool.sources is not None
    sources = np.asarray(pool.sources)
    inputs = SelectionInputs(trajectories=losses, ids=pool.ids[rows], sources=sources[rows])
    chosen = select(inputs, **settings)
    labels = np.full(len(pool.ids), -1, np.int32)
    labels[rows] = chosen.labels
    return dataclasses.replace(
        chosen, indices=rows[chosen.indices], labels=labels, ids=pool.ids, sources=sources
    )


def _given(run: Run, pool: PreparedPool | None) -> Selection:
    path = epath.Path(run.config.selection.path)
    if not run.config.selection.path or pool is None:
        raise InputError("method='given' needs selection.path, a .npy of pool rows, and pool.path.")
    if path.is_dir():
        path = path / _INDICES
    if not path.exists():
        raise InputError(f"selection.path: {path} does not exist.")
    indices = artifacts.read_npy(path)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(f"{path}: needs a list of whole numbers, holds {indices.dtype}{indices.shape}.")
    indices = np.asarray(indices, np.int64)
    if len(np.unique(indices)) != len(indices) or not len(indices):
        raise InputError(f"{path}: {len(indices)} rows, {len(np.unique(indices))} of them distinct.")
    if indices.min() < 0 or indices.max() >= len(pool):
        raise InputError(
            f"{path}: rows {indices.min()} to {indices.max()}, but the pool has {len(pool)} rows."
        )
    return Selection(
        indices=np.sort(indices),
        labels=np.zeros(len(pool), np.int32),
        centroids=np.zeros((0, 0), np.float32),
        cluster_sources=None,
        weights=np.ones(len(indices), np.float32),
        ids=np.asarray(pool.ids),
        sources=_sources(pool),
        method="given",
        budget=len(indices),
        seed=run.config.seed,
        options={},
    )


def _sources(pool: PreparedPool) -> np.ndarray:
    return np.asarray(pool.source_names)[np.asarray(pool.source_codes)]
