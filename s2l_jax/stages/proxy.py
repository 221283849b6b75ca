"""Stages `proxy` and `trajectories`: train the proxy and sweep it, or take trajectories made elsewhere."""

import hashlib
import json
import time
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt64

from s2l_jax.clustering import StreamingKMeans
from s2l_jax.console import duration, say
from s2l_jax.data.batching import size_of
from s2l_jax.data.identity import data_identity
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.models.parameters import Params
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.records import Record, stored_results
from s2l_jax.stages.models import Model, open_model
from s2l_jax.stages.run import Run, make_batches, num_steps, train_settings, trainable, what_decides
from s2l_jax.training.flops import forward_flops, training_flops
from s2l_jax.training.loop import train
from s2l_jax.trajectories.load import Trajectories, load_trajectories
from s2l_jax.trajectories.pinned import PinnedSlice
from s2l_jax.trajectories.store import TrajectoryStore
from s2l_jax.trajectories.sweep import make_sweep

STORE = "trajectories.zarr"


def train_proxy(run: Run, pool: PreparedPool) -> None:
    """Fine-tune the proxy on the pool and record every example's loss at the cadence.

    Raises:
      InputError: a cadence longer than the run, or a workdir made with other settings.
    """
    config = run.config
    subset = trainable(pool)
    steps = num_steps(config.proxy.train, len(subset))
    cadence = config.trajectories.every
    if cadence > steps:
        raise InputError(
            f"trajectories.every={cadence} is longer than the proxy's run of {steps} steps: no loss "
            "would ever be measured. Lower it, or train the proxy longer."
        )
    settings = {
        "proxy": what_decides(config.proxy),
        "seed": config.seed,
        "pool": pool.fingerprint,
        "trajectories": {k: config.trajectories[k] for k in ("every", "step_zero", "dtype")},
        "num_clusters": config.clustering.num_clusters,
    }
    record = Record(run.workdir / "proxy", "proxy", settings)
    if record.done:
        return
    model = open_model(run, "proxy")
    batches = make_batches(run, pool, subset, np.ones(len(subset), np.float32), config.proxy.train, steps)
    sweeps = _Sweeps(run, pool, model, settings)
    sweep_steps = range(0 if config.trajectories.step_zero else cadence, steps + 1, cadence)
    result = train(
        model.config,
        model.initial_params,
        batches,
        train_settings(run, config.proxy.train),
        run.mesh,
        record.folder,
        label=f"proxy, {model.num_parameters / 1e6:.3g}M parameters",
        sweep_steps=sweep_steps,
        sweep=sweeps.at,
    )
    size = batches.size()
    record.finish(
        {
            "steps": steps,
            "parameters": model.num_parameters,
            "examples_seen": steps * config.proxy.train.batch_size,
            "tokens_seen": size.tokens,
            "training_flops": training_flops(model.config, size),
            "sweep_flops": len(sweep_steps)
            * forward_flops(model.config, size_of(pool, np.arange(len(pool)))),
            "final_loss": float(result.losses[-1]),
            "curve": curve(result.losses),
            "refreshes": [vars(refresh) for refresh in sweeps.clusters.records],
        }
    )


class _Sweeps:
    """Measures a column at each checkpoint, stores it, and hands it to the running clustering."""

    def __init__(self, run: Run, pool: PreparedPool, model: Model, settings: dict[str, Any]):
        config = run.config
        if processes.is_writer():
            text = json.dumps(settings, sort_keys=True)
            origin = {
                "proxy": config.proxy.checkpoint,
                "settings": hashlib.sha256(text.encode()).hexdigest(),
            }
            TrajectoryStore.create(run.workdir / STORE, np.asarray(pool.ids), origin)
        processes.barrier("trajectory store")
        self._store = TrajectoryStore(run.workdir / STORE)
        self.clusters = StreamingKMeans(len(pool), config.clustering.num_clusters, config.seed)
        # A column the store lists is not measured again; replaying it leaves the same records.
        self._known = {int(s): i for i, s in enumerate(self._store.steps())}
        processes.barrier("trajectory steps read")
        tracked = PinnedSlice(
            pool,
            np.arange(len(pool)),
            run.mesh,
            max_length=config.tokenize.max_length,
            batch_tokens=config.trajectories.batch_tokens,
            pinned_bytes=config.trajectories.pinned_mb * 2**20,
        )
        self._sweep = make_sweep(
            model.config,
            tracked,
            run.mesh,
            dtype=DTYPES[config.trajectories.dtype],
            attention=config.attention,
        )
        for number in self._known.values():
            self.clusters.update(self._store.column(number))

    def at(self, step: int, params: Params) -> None:
        """The sweep after `step` training steps."""
        if step in self._known:
            return
        start = time.monotonic()
        column = np.asarray(self._sweep(params))
        if not np.isfinite(column).all():
            bad = np.flatnonzero(~np.isfinite(column))
            raise DivergedError(
                f"the sweep at step {step} found {len(bad)} losses that are not finite; the first is pool "
                f"row {bad[0]}. Lower proxy.train.learning_rate, or use trajectories.dtype=float32."
            )
        if processes.is_writer():
            self._store.append(step, column)
        processes.barrier(f"column {step}")
        self._known[step] = len(self._known)
        refresh = self.clusters.update(column)
        seconds = time.monotonic() - start
        say(
            f"  step {step}: swept {len(column)} examples in {duration(seconds)}, mean loss "
            f"{column.mean():.3f}, clusters' agreement with the last {refresh.adjusted_rand:.3f}"
        )


def curve(losses: Float32[np.ndarray, "s"], points: int = 500) -> dict[str, list]:
    """A loss history thinned to means over at most `points` equal stretches."""
    stretch = -(-len(losses) // points)
    ends = list(range(stretch, len(losses) + 1, stretch))
    if not ends or ends[-1] != len(losses):
        ends.append(len(losses))
    starts = [0, *ends[:-1]]
    means = [float(np.mean(losses[a:b])) for a, b in zip(starts, ends, strict=True)]
    return {"step": ends, "loss": means}


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
        finished = stored_results(run.workdir / "proxy") is not None
        return load_trajectories(run.workdir / STORE) if finished else None
    record = Record(run.workdir / "imported", "imported trajectories", {"content": data_identity(path)})
    loaded = load_trajectories(path)
    if ids is not None:
        _match(loaded, ids, path)
    if not record.done:
        record.finish({"path": path})
    return loaded


def _match(loaded: Trajectories, ids: UInt64[np.ndarray, "n"], path: str) -> None:
    if len(loaded.losses) != len(ids):
        raise InputError(
            f"{path} holds trajectories of {len(loaded.losses)} examples, the pool has {len(ids)} rows; they "
            "must be the same rows in the same order."
        )
    if loaded.ids is not None and not np.array_equal(loaded.ids, ids):
        other = np.flatnonzero(loaded.ids != ids)
        raise InputError(
            f"{path}: {len(other)} ids differ from the pool's; the first rows: "
            f"{', '.join(map(str, other[:5]))}. The pool must hold the same rows in the same order."
        )
