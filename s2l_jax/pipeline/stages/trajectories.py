"""Stage `trajectories`: which rows are tracked, the columns measured of them, and what selection gets."""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float32, Int64, UInt64

from s2l_jax import artifacts
from s2l_jax.clustering import StreamingKMeans
from s2l_jax.clustering.streaming import Refresh
from s2l_jax.console import duration, say
from s2l_jax.data.identity import data_identity
from s2l_jax.data.order import priorities
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import shares_prefix
from s2l_jax.models.hf import load_config
from s2l_jax.models.parameters import Params, model_params
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.records import Record, stored_results
from s2l_jax.training.flops import forward_flops
from s2l_jax.training.run import Run
from s2l_jax.trajectories.cadence import listed_steps
from s2l_jax.trajectories.load import Trajectories, files_of, load_trajectories
from s2l_jax.trajectories.pinned import PinnedSlice, sweep_size
from s2l_jax.trajectories.slices import SliceSettings, rows_in_pool, slice_rows
from s2l_jax.trajectories.snapshots import find_snapshots, load_snapshot, read_mark
from s2l_jax.trajectories.store import TrajectoryStore, Writers
from s2l_jax.trajectories.sweep import make_sweep

STORE = "trajectories.zarr"
SWEPT = "trajectories"  # the record of sweeps over another workdir's snapshots


class Tracked:
    """The rows of the pool whose losses are tracked: all, or the slice that the config asks for.

    Attributes:
      rows: int64 [S], sorted.
      ids: uint64 [S].
      settings: what tells this slice from another; empty for the whole pool.
    """

    def __init__(self, run: Run, pool: PreparedPool):
        asked = run.config.trajectories
        ids = np.asarray(pool.ids)
        chosen = slice_rows(
            SliceSettings(asked.slice_count, asked.slice_fraction, asked.slice_ids),
            ids,
            np.asarray(pool.source_codes),
            priorities(ids, run.config.seed),
        )
        self.rows: Int64[np.ndarray, "s"] = np.arange(len(pool)) if chosen is None else chosen
        self.ids: UInt64[np.ndarray, "s"] = ids[self.rows]
        self.settings: dict[str, Any] = {}
        if chosen is not None:
            digest = hashlib.sha256(self.ids.tobytes()).hexdigest()
            self.settings = {"slice": {"rows": len(chosen), "ids_sha256": digest}}
            say(f"tracking a slice of {len(chosen)} of {len(pool)} pool rows")


class Columns:
    """The columns of one run: each is stored, and handed to the running clustering.

    Args:
      run: the run.
      tracked: the examples that the columns are of.
      kind: how they are measured: "sweep" or "train".
      settings: everything that decides the columns.
    """

    def __init__(self, run: Run, tracked: Tracked, kind: str, settings: Mapping[str, Any]):
        config = run.config
        if processes.is_writer():
            text = json.dumps(settings, sort_keys=True)
            origin = {
                "proxy": config.proxy.checkpoint,
                "source": kind,
                "settings": hashlib.sha256(text.encode()).hexdigest(),
            }
            TrajectoryStore.create(run.workdir / STORE, tracked.ids, origin)
        processes.barrier("trajectory store")
        writers = Writers(jax.process_index(), jax.process_count(), processes.barrier)
        self._store = TrajectoryStore(run.workdir / STORE, writers)
        self.clusters = StreamingKMeans(len(tracked.rows), config.clustering.num_clusters, config.seed)
        self.steps: list[int] = self._store.steps().tolist()
        processes.barrier("trajectory steps read")
        # A column the store lists is not measured again; replaying it leaves the same records.
        for number in range(len(self.steps)):
            self.clusters.update(self._store.column(number))

    def add(self, step: int, column: Float32[np.ndarray, "s"]) -> Refresh:
        """Store the losses measured after `step` training steps; every process takes part."""
        self._store.append(step, column)
        self.steps.append(step)
        return self.clusters.update(column)

    def settled(self, step: int, times: int, above: float) -> bool:
        """Whether the column of `step` is the last of `times` in a row that hardly changed the clusters.

        That is when each refresh agrees with the one before by an adjusted Rand index of at least `above`.
        All processes have the same answer.
        """
        if step not in self.steps:
            return False
        last = self.clusters.records[: self.steps.index(step) + 1][-times:]
        # The first column has none to agree with.
        stable = all(r.columns > 1 and r.adjusted_rand >= above for r in last)
        return processes.of_writer(len(last) == times and stable)

    def add_epoch(self, step: int, column: Float32[np.ndarray, "s"]) -> None:
        """Store the losses that training steps saw in the epoch that ended with `step`."""
        refresh = self.add(step, column)
        say(
            f"  step {step}: epoch {len(self.steps)} gave training losses of {len(column)} examples, mean "
            f"{column.mean():.3f}, clusters' agreement with the last {refresh.adjusted_rand:.3f}"
        )


class Sweeps:
    """Measures a column by a sweep over the tracked rows."""

    def __init__(
        self, run: Run, pool: PreparedPool, tracked: Tracked, model: DecoderConfig, columns: Columns
    ):
        config = run.config
        self._tracked, self._columns = tracked, columns
        pinned = PinnedSlice(
            pool,
            tracked.rows,
            run.mesh,
            max_length=config.tokenize.max_length,
            batch_tokens=config.trajectories.batch_tokens,
            pinned_bytes=config.trajectories.pinned_mb * 2**20,
            share_prefix=shares_prefix(model, config.tokenize.max_length),
        )
        self._sweep = make_sweep(
            model,
            pinned,
            run.mesh,
            dtype=DTYPES[config.trajectories.dtype],
            attention=config.attention,
        )

    def at(self, step: int, params: Params) -> None:
        """The sweep after `step` training steps, unless it is there.

        Raises:
          DivergedError: a loss that is not finite.
        """
        if step in self._columns.steps:
            return
        start = time.monotonic()
        column = np.asarray(self._sweep(params))
        if not np.isfinite(column).all():
            bad = np.flatnonzero(~np.isfinite(column))
            raise DivergedError(
                f"the sweep at step {step} found {len(bad)} losses that are not finite; the first is pool "
                f"row {self._tracked.rows[bad[0]]}. Lower proxy.train.learning_rate, or use "
                "trajectories.dtype=float32."
            )
        refresh = self._columns.add(step, column)
        seconds = time.monotonic() - start
        say(
            f"  step {step}: swept {len(column)} examples in {duration(seconds)}, mean loss "
            f"{column.mean():.3f}, clusters' agreement with the last {refresh.adjusted_rand:.3f}"
        )


def sweep_snapshots(run: Run, pool: PreparedPool) -> None:
    """Sweep the parameter snapshots of another workdir's proxy over this one's rows.

    All of them, or with cadence="list" those of the steps listed.

    Raises:
      InputError: no snapshots, damaged ones, or of a proxy that was trained on otherwise tokenised
        rows; a workdir made with other settings, or with a proxy of its own.
    """
    config = run.config
    if (run.workdir / "proxy" / "stage.json").exists():
        raise InputError(
            f"{run.workdir} has a proxy of its own: to sweep snapshots again, use another --workdir."
        )
    snapshots = _wanted_snapshots(run)
    marks = {step: read_mark(folder) for step, folder in snapshots.items()}
    for step, mark in marks.items():
        if mark["made_with"] != snapshot_settings(run):
            raise InputError(
                f"{snapshots[step]}: this proxy was trained with another tokeniser or other tokenize.* "
                "fields. Set proxy.tokenizer (or proxy.checkpoint) and tokenize.* as they were then."
            )
    tracked = Tracked(run, pool)
    settings: dict[str, Any] = {
        "snapshots": {str(step): mark["sha256"] for step, mark in marks.items()},
        "seed": config.seed,
        "pool": pool.fingerprint,
        "trajectories": {"dtype": config.trajectories.dtype} | tracked.settings,
        "num_clusters": config.clustering.num_clusters,
    }
    record = Record(run.workdir / SWEPT, "trajectories", settings)
    if record.done:
        return
    columns = Columns(run, tracked, "sweep", settings)
    sweeps: Sweeps | None = None
    for step, folder in snapshots.items():
        if step in columns.steps:
            continue
        model = load_snapshot(folder, run.mesh)
        sweeps = sweeps or Sweeps(run, pool, tracked, model.config, columns)
        sweeps.at(step, model_params(model))
    model_config = load_config(artifacts.local_copy(next(iter(snapshots.values())), ["config.json"]))
    record.finish(
        {
            "sweep_flops": len(snapshots) * sweep_flops(run, pool, tracked, model_config),
            "refreshes": [vars(refresh) for refresh in columns.clusters.records],
        }
    )


def sweep_flops(run: Run, pool: PreparedPool, tracked: Tracked, model: DecoderConfig) -> float:
    """Model FLOPs of one sweep."""
    shared = shares_prefix(model, run.config.tokenize.max_length)
    return forward_flops(model, sweep_size(pool, tracked.rows, share_prefix=shared))


def snapshot_settings(run: Run) -> dict[str, str]:
    """What a snapshot and a later sweep of it must agree on: how rows become tokens."""
    tokenize = TokenizeSettings(**run.config.tokenize.to_dict())
    return {"tokens": fingerprint("", run.tokenizer("proxy"), tokenize)}


def _wanted_snapshots(run: Run) -> dict[int, epath.Path]:
    asked = run.config.trajectories
    found = find_snapshots(asked.snapshots)
    if asked.cadence != "list":
        return found
    wanted = sorted({*listed_steps(asked.steps), *([0] if asked.step_zero else [])})
    if absent := [step for step in wanted if step not in found]:
        raise InputError(
            f"trajectories.steps={asked.steps!r}: {asked.snapshots} has no snapshot of step "
            f"{', '.join(map(str, absent))}; there are {', '.join(map(str, found))}."
        )
    return {step: found[step] for step in wanted}


def collect_trajectories(run: Run, ids: UInt64[np.ndarray, "n"] | None) -> Trajectories | None:
    """The trajectories that selection uses: imported, or from this workdir; None when there are none.

    Args:
      run: the run.
      ids: of the pool's rows, if there is a pool.

    Raises:
      InputError: the trajectories are not of this pool's rows.
    """
    path = run.config.trajectories.path
    if not path:
        # Columns of a proxy that is still training are not the trajectories that were asked for.
        maker = SWEPT if run.config.trajectories.snapshots else "proxy"
        finished = stored_results(run.workdir / maker) is not None
        return load_trajectories(run.workdir / STORE) if finished else None
    record = Record(
        run.workdir / "imported", "imported trajectories", {"content": data_identity(files_of(path))}
    )
    loaded = load_trajectories(path)
    tracked_rows(loaded, ids, path)
    if not record.done:
        record.finish({"path": path})
    return loaded


def described(run: Run) -> dict[str, Any]:
    """How the trajectories were measured ("source"), as far as their store says."""
    path = epath.Path(run.config.trajectories.path or run.workdir / STORE) / "zarr.json"
    if not path.exists():
        return {}
    attributes = artifacts.read_json(path).get("attributes", {})
    return {"source": attributes["source"]} if "source" in attributes else {}


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
