"""Stage `trajectories`: which rows are tracked, the columns measured of them, and what selection gets."""

import hashlib
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Int, Int64, UInt64
from ml_collections import ConfigDict

from s2l_jax import artifacts, integrity
from s2l_jax.clustering import StreamingKMeans
from s2l_jax.config import deciding
from s2l_jax.data.identity import data_identity
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import shares_prefix
from s2l_jax.models.parameters import Params
from s2l_jax.models.weights import DTYPES
from s2l_jax.pipeline.plan import sweeps_saved
from s2l_jax.pipeline.stages.given_costs import cost_of_losses
from s2l_jax.records import Record, stored_digests, stored_results
from s2l_jax.selection.known import mostly_single
from s2l_jax.training.flops import forward_flops
from s2l_jax.training.out_of_memory import explained
from s2l_jax.training.run import Run
from s2l_jax.trajectories.load import Trajectories, files_of, load_trajectories
from s2l_jax.trajectories.packed_dataset import PackedDataset, sweep_size
from s2l_jax.trajectories.slices import SliceSettings, TrackedRows, rows_in_pool, track
from s2l_jax.trajectories.sweep import LossSweeper, make_sweep
from s2l_jax.trajectories.writer import TrajectoryWriter

STORE = "trajectories.zarr"
SLICE = "trajectories.slice"  # the settings of what is tracked, where that is not the whole pool
_META = "zarr.json"  # of a store
SWEPT = "trajectories"  # the record of sweeps over parameters that were saved before


def tracked_of(run: Run, pool: PreparedPool) -> TrackedRows:
    """The rows of the pool that the config asks for."""
    asked = run.config.trajectories
    settings = SliceSettings(asked.slice_count, asked.slice_fraction, asked.slice_ids)
    return track(settings, np.asarray(pool.ids), np.asarray(pool.source_codes), run.config.seed)


def writer_of(run: Run, tracked: TrackedRows, kind: str, settings: Mapping[str, Any]) -> TrajectoryWriter:
    """What takes the columns of a run: of the tracked rows, measured by a `kind` of "sweep" or "train".

    `settings` is everything that decides them.
    """
    config = run.config
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return TrajectoryWriter(
        run.workdir / STORE,
        tracked.ids,
        {"proxy": config.proxy.checkpoint, "source": kind, "settings": digest},
        StreamingKMeans(
            len(tracked.rows),
            config.clustering.num_clusters,
            config.seed,
            sources=_categories(tracked) if config.selection.stratify_by == "source" else None,
        ),
    )


def _categories(tracked: TrackedRows) -> Int[np.ndarray, " n"] | None:
    """The sources of the tracked rows; None where they tell rows apart and not kinds of rows."""
    sizes = np.unique(tracked.sources, return_counts=True)[1]
    if single := mostly_single(sizes):
        warnings.warn(
            f"{single:,} of {len(sizes):,} sources have a single tracked row: no categories. The running "
            "clustering takes all rows together. Name a field that is a category as the source "
            "(pool.fields.source), or set selection.stratify_by='none'.",
            stacklevel=2,
        )
        return None
    return tracked.sources


def sweeper_of(
    run: Run,
    pool: PreparedPool,
    tracked: TrackedRows,
    model: DecoderConfig,
    writer: TrajectoryWriter,
    steps: Collection[int] = (),
) -> LossSweeper:
    """What sweeps the tracked rows, in training after each of `steps`."""
    config = run.config
    with explained(config, "sweep"):
        dataset = PackedDataset(pool, tracked.rows, run.mesh, **packing_options(config, model))
    dtype = DTYPES[config.trajectories.dtype]
    sweep = make_sweep(model, dataset, run.mesh, dtype=dtype, attention=config.attention)

    def measured(params: Params) -> Array:
        with explained(config, "sweep"):
            return jax.block_until_ready(sweep(params))

    return LossSweeper(measured, tracked.rows, writer, steps)


def packing_options(config: ConfigDict, model: DecoderConfig) -> dict[str, Any]:
    """How the config has tracked rows packed: arguments of `PackedDataset`."""
    return {
        "max_length": config.tokenize.max_length,
        "batch_tokens": config.trajectories.batch_tokens,
        "pinned_bytes": config.trajectories.pinned_mb * 2**20,
        "share_prefix": shares_prefix(model, config.tokenize.max_length),
    }


def sweep_flops(run: Run, pool: PreparedPool, tracked: TrackedRows, model: DecoderConfig) -> float:
    """Model FLOPs of one sweep."""
    shared = shares_prefix(model, run.config.tokenize.max_length)
    return forward_flops(model, sweep_size(pool, tracked.rows, share_prefix=shared))


def collect_trajectories(run: Run, ids: UInt64[np.ndarray, "n"] | None) -> Trajectories | None:
    """The trajectories that selection uses: imported, or from this workdir; None when there are none.

    Raises:
      InputError: the trajectories are not of the rows of the pool, whose `ids` these are if there is one.
    """
    path = run.config.trajectories.path
    if not path:
        # Columns of a proxy that is still training are not the trajectories that were asked for.
        maker = SWEPT if sweeps_saved(run.config) else "proxy"
        finished = stored_results(run.workdir / maker) is not None
        return _load_store(run, maker) if finished else None
    settings = deciding(run.config, "imported", {"trajectories.path": data_identity(files_of(path))})
    record = Record(run.workdir / "imported", "imported trajectories", settings)
    loaded = load_trajectories(path)
    tracked_rows(loaded, ids, path)
    if not record.done:
        record.finish({"path": path} | cost_of_losses(path, loaded.digest))
    return loaded


def store_digests(run: Run) -> dict[str, str]:
    """What the record of who measured the store keeps of it."""
    store = run.workdir / STORE
    return {_META: integrity.digest(store / _META), STORE: load_trajectories(store).digest}


def lost_columns(run: Run, steps: Sequence[int]) -> InputError:
    """What is said of a store without columns that were measured."""
    return InputError(
        f"{run.workdir / STORE} lacks the columns of step {', '.join(map(str, steps))}, which were measured: "
        f"{_way_out(run, 'proxy')}."
    )


def _load_store(run: Run, maker: str) -> Trajectories:
    """The trajectories of this workdir, as the part `maker` measured them."""
    store, kept, fix = run.workdir / STORE, stored_digests(run.workdir / maker), _way_out(run, maker)
    integrity.check(store, {_META: kept[_META]}, fix)
    loaded = load_trajectories(store)
    if loaded.digest != kept[STORE]:
        raise InputError(f"{store} does not hold what was measured: {fix}.")
    return loaded


def _way_out(run: Run, maker: str) -> str:
    return f"remove it and {run.workdir / maker} and run the same command, which measures it again"


def described(run: Run) -> dict[str, Any]:
    """How the trajectories were measured ("source"), as far as their store says."""
    path = epath.Path(run.config.trajectories.path or run.workdir / STORE) / "zarr.json"
    attributes = artifacts.read_json(path).get("attributes", {}) if path.exists() else {}
    return {name: value for name, value in attributes.items() if name == "source"}


def tracked_rows(
    trajectories: Trajectories | None, ids: UInt64[np.ndarray, "n"] | None, path: str = STORE
) -> Int64[np.ndarray, "s"] | None:
    """The pool row of each trajectory; None when they are of the whole pool, or there is no pool.

    Raises:
      InputError: the trajectories are not of this pool's rows; names `path`.
    """
    if trajectories is None or ids is None:
        return None
    size = len(trajectories.losses)
    if size > len(ids) or (trajectories.ids is None and size < len(ids)):
        raise InputError(
            f"{path} holds trajectories of {size} examples, the pool has {len(ids)} rows (those that were "
            "skipped are not counted); they must be the same rows in the same order, or with their ids some "
            "of them."
        )
    return rows_in_pool(trajectories.ids, ids, path)
