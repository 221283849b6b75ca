"""Stage `proxy`: fine-tune the proxy on the pool and measure the tracked examples on the way."""

import functools

import numpy as np

from s2l_jax import records
from s2l_jax.config import deciding
from s2l_jax.console import say
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.pipeline.stages.saved_parameters import snapshot_settings
from s2l_jax.pipeline.stages.trajectories import (
    SLICE,
    lost_columns,
    store_digests,
    sweep_flops,
    sweeper_of,
    tracked_of,
    writer_of,
)
from s2l_jax.records import Record
from s2l_jax.training.flops import training_flops
from s2l_jax.training.hooks import Hook
from s2l_jax.training.loop import train
from s2l_jax.training.metrics import loss_curve
from s2l_jax.training.out_of_memory import explained
from s2l_jax.training.run import Run, make_batches, num_steps, train_settings, trainable
from s2l_jax.trajectories.cadence import Cadence, sweep_steps
from s2l_jax.trajectories.settled import StopWhenSettled
from s2l_jax.trajectories.snapshots import SnapshotKeeper
from s2l_jax.trajectories.training_losses import TrainingLossRecorder, check_epochs, epoch_ends


def check_cadence(run: Run) -> None:
    """Find now what `sweep_steps` finds wrong with the cadence, if the length of the run is known."""
    steps = run.config.proxy.train.steps
    if steps and run.config.trajectories.source == "sweep":
        planned_sweeps(run, steps)


def check_content(run: Run, pool: PreparedPool) -> None:
    """Raise an InputError if the proxy's losses are of other rows of the pool than the config asks for."""
    records.check_content(run.workdir / "proxy", "proxy", tracked_of(run, pool).settings, (SLICE,))


def train_proxy(run: Run, pool: PreparedPool) -> None:
    """Fine-tune the proxy on the pool and record every tracked example's loss at the cadence.

    Raises:
      InputError: a cadence that does not fit the run, a slice that cannot be had, or a workdir made
        with other settings.
    """
    config = run.config
    subset = trainable(pool)
    steps = num_steps(config.proxy.train, len(subset))
    asked, kind = config.trajectories, config.trajectories.source
    swept = columns = planned_sweeps(run, steps) if kind == "sweep" else []
    if kind == "train":
        check_epochs(config.proxy.train.batch_size, steps, len(subset))
        columns = epoch_ends(config.proxy.train.batch_size, steps, len(subset))
    tracked = tracked_of(run, pool)
    beyond = {"pool.fingerprint": pool.fingerprint} | tracked.settings | run.model_content("proxy")
    settings = deciding(config, "proxy", beyond)
    record = Record(run.workdir / "proxy", "proxy", settings)
    if record.done:
        return
    model = run.model("proxy")
    batches = make_batches(
        run, pool, subset, np.ones(len(subset), np.float32), model.config, config.proxy.train, steps
    )
    writer = writer_of(run, tracked, kind, settings)
    hooks: list[Hook] = []
    if kind == "train":
        batch_size = config.proxy.train.batch_size
        hooks.append(TrainingLossRecorder(record.folder, subset, tracked.rows, batch_size, writer))
    else:
        if config.proxy.save_params:
            hooks.append(SnapshotKeeper(record.folder / "snapshots", model, snapshot_settings(run), swept))
        hooks.append(sweeper_of(run, pool, tracked, model.config, writer, swept))
        if asked.stop_when_stable:
            hooks.append(StopWhenSettled(writer, asked.stop_when_stable, asked.stable_above))
    with explained(config, "proxy"), record.counting():
        result = train(
            model.config,
            model.initial_params,
            batches,
            train_settings(run, config.proxy.train),
            run.mesh,
            record.folder,
            label=f"proxy, {model.num_parameters / 1e6:.3g}M parameters",
            hooks=[*run.profilers(record.folder), *hooks],
        )
    done = len(result.losses)
    if done < steps:
        say(
            f"  the clusters have settled: training ended after {done} of {steps} steps, with "
            f"{len(writer.steps)} of {len(swept)} sweeps"
        )
    if absent := [step for step in columns if step <= done and step not in writer.steps]:
        raise lost_columns(run, absent)
    size = batches.size(done)
    num_sweeps = len(writer.steps) if swept else 0
    record.finish(
        {
            "steps": done,
            "parameters": model.num_parameters,
            "examples_seen": done * config.proxy.train.batch_size,
            "tokens_seen": size.tokens,
            "training_flops": training_flops(model.config, size),
            "sweep_flops": num_sweeps * sweep_flops(run, pool, tracked, model.config),
            "final_loss": float(result.losses[-1]),
            "curve": loss_curve(result.losses),
            "refreshes": [vars(refresh) for refresh in writer.clusters.records],
        }
        | ({"planned_steps": steps} if done < steps else {}),
        digests=functools.partial(store_digests, run),
    )


def planned_sweeps(run: Run, steps: int) -> list[int]:
    """The numbers of finished steps, of so many, after which the config has the proxy swept."""
    asked = run.config.trajectories
    return sweep_steps(Cadence.of(asked), steps)
