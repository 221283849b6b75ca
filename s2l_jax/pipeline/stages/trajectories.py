"""Stage `trajectories`: which rows are tracked, the columns measured of them, and what selection gets."""

import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Int64, UInt64
from ml_collections import ConfigDict

from s2l_jax import artifacts, integrity, records
from s2l_jax.clustering import StreamingKMeans
from s2l_jax.config import deciding
from s2l_jax.data.identity import data_identity
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint
from s2l_jax.errors import InputError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import shares_prefix
from s2l_jax.models.hf import load_config
from s2l_jax.models.parameters import Params, model_params
from s2l_jax.models.weights import DTYPES
from s2l_jax.records import Record, stored_digests, stored_results
from s2l_jax.training.flops import forward_flops
from s2l_jax.training.out_of_memory import explained
from s2l_jax.training.run import Run
from s2l_jax.trajectories.load import Trajectories, files_of, load_trajectories
from s2l_jax.trajectories.packed_dataset import PackedDataset, sweep_size
from s2l_jax.trajectories.slices import SliceSettings, TrackedRows, rows_in_pool, track
from s2l_jax.trajectories.snapshots import find_snapshots, load_snapshot, read_mark
from s2l_jax.trajectories.sweep import LossSweeper, make_sweep
from s2l_jax.trajectories.writer import TrajectoryWriter

STORE = "trajectories.zarr"
SLICE = "trajectories.slice"  # the settings of what is tracked, where that is not the whole pool
_META = "zarr.json"  # of a store
SWEPT = "trajectories"  # the record of sweeps over another workdir's snapshots


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
            sources=tracked.sources if config.selection.stratify_by == "source" else None,
        ),
    )


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


def sweep_snapshots(run: Run, pool: PreparedPool) -> None:
    """Sweep the parameter snapshots of another workdir's proxy over this one's rows.

    All of them, or with cadence="list" those of the steps listed.

    Raises:
      InputError: no snapshots, damaged ones, or of a proxy that was trained on otherwise tokenised
        rows; a workdir made with other settings, or with a proxy of its own.
    """
    config = run.config
    _check_no_proxy(run)
    snapshots = wanted_snapshots(run)
    marks = {step: read_mark(folder) for step, folder in snapshots.items()}
    for step, mark in marks.items():
        if mark["made_with"] != snapshot_settings(run):
            raise InputError(
                f"{snapshots[step]}: this proxy was trained with another tokeniser or other tokenize.* "
                "fields. Set proxy.tokenizer (or proxy.checkpoint) and tokenize.* as they were then."
            )
    tracked = tracked_of(run, pool)
    beyond = {"pool.fingerprint": pool.fingerprint} | _swept_content(marks) | tracked.settings
    settings = deciding(config, "trajectories", beyond)
    record = Record(run.workdir / SWEPT, "trajectories", settings)
    if record.done:
        return
    writer = writer_of(run, tracked, "sweep", settings)
    sweeper: LossSweeper | None = None
    for step, folder in snapshots.items():
        if step in writer.steps:
            continue
        model = load_snapshot(folder, run.mesh)
        sweeper = sweeper or sweeper_of(run, pool, tracked, model.config, writer)
        sweeper.at_cadence(step, model_params(model))
    model_config = load_config(artifacts.local_copy(next(iter(snapshots.values())), ["config.json"]))
    record.finish(
        {
            "sweep_flops": len(snapshots) * sweep_flops(run, pool, tracked, model_config),
            "refreshes": [vars(refresh) for refresh in writer.clusters.records],
        },
        digests=functools.partial(store_digests, run),
    )


def check_content(run: Run, pool: PreparedPool) -> None:
    """Raise an InputError if what was swept is of other snapshots or rows than the config asks for."""
    _check_no_proxy(run)
    marks = {step: read_mark(folder) for step, folder in wanted_snapshots(run).items()}
    content = _swept_content(marks) | tracked_of(run, pool).settings
    records.check_content(run.workdir / SWEPT, "trajectories", content, (SLICE, "trajectories.snapshots"))


def _check_no_proxy(run: Run) -> None:
    if (run.workdir / "proxy" / "stage.json").exists():
        raise InputError(
            f"trajectories.snapshots: {run.workdir} has a proxy of its own: to sweep snapshots again, use "
            "another --workdir."
        )


def _swept_content(marks: Mapping[int, Any]) -> dict[str, Any]:
    return {"trajectories.snapshots": {str(step): mark["sha256"] for step, mark in marks.items()}}


def sweep_flops(run: Run, pool: PreparedPool, tracked: TrackedRows, model: DecoderConfig) -> float:
    """Model FLOPs of one sweep."""
    shared = shares_prefix(model, run.config.tokenize.max_length)
    return forward_flops(model, sweep_size(pool, tracked.rows, share_prefix=shared))


def snapshot_settings(run: Run) -> dict[str, Any]:
    """What a snapshot and a later sweep of it must agree on: how rows become tokens."""
    tokenize = TokenizeSettings(**run.config.tokenize.to_dict())
    tokens = fingerprint("", run.tokenizer("proxy"), tokenize)
    return deciding(run.config, "snapshots", {"tokenize.fingerprint": tokens})


def wanted_snapshots(run: Run) -> dict[int, epath.Path]:
    """The snapshots to sweep, by step."""
    asked = run.config.trajectories
    found = find_snapshots(asked.snapshots)
    if asked.cadence != "list":
        return found
    wanted = sorted({*asked.steps, *([0] if asked.step_zero else [])})
    if absent := [step for step in wanted if step not in found]:
        raise InputError(
            f"trajectories.steps={asked.steps!r}: {asked.snapshots} has no snapshot of step "
            f"{', '.join(map(str, absent))}; there are {', '.join(map(str, found))}."
        )
    return {step: found[step] for step in wanted}


def collect_trajectories(run: Run, ids: UInt64[np.ndarray, "n"] | None) -> Trajectories | None:
    """The trajectories that selection uses: imported, or from this workdir; None when there are none.

    Raises:
      InputError: the trajectories are not of the rows of the pool, whose `ids` these are if there is one.
    """
    path = run.config.trajectories.path
    if not path:
        # Columns of a proxy that is still training are not the trajectories that were asked for.
        maker = SWEPT if run.config.trajectories.snapshots else "proxy"
        finished = stored_results(run.workdir / maker) is not None
        return _load_store(run, maker) if finished else None
    settings = deciding(run.config, "imported", {"trajectories.path": data_identity(files_of(path))})
    record = Record(run.workdir / "imported", "imported trajectories", settings)
    loaded = load_trajectories(path)
    tracked_rows(loaded, ids, path)
    if not record.done:
        record.finish({"path": path})
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
            f"{path} holds trajectories of {size} examples, the pool has {len(ids)} rows; they must be the "
            "same rows in the same order, or with their ids some of them."
        )
    return rows_in_pool(trajectories.ids, ids, path)
