"""Stage `proxy`: fine-tune the proxy on the pool and measure the tracked examples on the way."""

from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32

from s2l_jax.console import say
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.models.parameters import Params
from s2l_jax.pipeline.stages.trajectories import Columns, Sweeps, Tracked, snapshot_settings, sweep_flops
from s2l_jax.records import Record
from s2l_jax.training.flops import training_flops
from s2l_jax.training.loop import train
from s2l_jax.training.models import Model
from s2l_jax.training.run import Run, make_batches, num_steps, train_settings, trainable, what_decides
from s2l_jax.trajectories.cadence import Cadence, listed_steps, sweep_steps
from s2l_jax.trajectories.snapshots import save_snapshot
from s2l_jax.trajectories.visits import Visits, check_epochs

SNAPSHOTS = "snapshots"


def check_cadence(run: Run) -> None:
    """Find now what is wrong with the cadence, as far as the length of the run is known.

    Raises:
      InputError: see `cadence.sweep_steps`.
    """
    if run.config.trajectories.source == "train":
        return
    if run.config.proxy.train.steps:
        sweep_steps(_cadence(run), run.config.proxy.train.steps)
    elif run.config.trajectories.cadence == "list":
        listed_steps(run.config.trajectories.steps)


def train_proxy(run: Run, pool: PreparedPool) -> None:
    """Fine-tune the proxy on the pool and record every tracked example's loss at the cadence.

    Raises:
      InputError: a cadence that does not fit the run, a slice that cannot be had, or a workdir made
        with other settings.
    """
    config = run.config
    subset = trainable(pool)
    steps = num_steps(config.proxy.train, len(subset))
    kind = config.trajectories.source
    swept: list[int] = []
    if kind == "sweep":
        swept = sweep_steps(_cadence(run), steps)
        measured = _cadence(run).decisive | {"dtype": config.trajectories.dtype} | _stopping(run)
    else:
        check_epochs(config.proxy.train.batch_size, steps, len(subset))
        measured = {"source": kind}
    tracked = Tracked(run, pool)
    settings: dict[str, Any] = {
        "proxy": what_decides(config.proxy),
        "seed": config.seed,
        "pool": pool.fingerprint,
        "trajectories": measured | tracked.settings,
        "num_clusters": config.clustering.num_clusters,
    }
    record = Record(run.workdir / "proxy", "proxy", settings)
    if record.done:
        return
    model = run.model("proxy")
    batches = make_batches(
        run, pool, subset, np.ones(len(subset), np.float32), model.config, config.proxy.train, steps
    )
    columns = Columns(run, tracked, kind, settings)
    measure: dict[str, Any] = {}
    if kind == "sweep":
        measure["sweep"] = _sweeping(run, pool, tracked, model, columns, record.folder / SNAPSHOTS)
        if stopping := _stopping(run):
            measure["enough"] = lambda step: columns.settled(
                step, stopping["stop_when_stable"], stopping["stable_above"]
            )
    else:
        measure["recorder"] = Visits(
            record.folder,
            subset,
            tracked.rows,
            config.proxy.train.batch_size,
            columns=len(columns.steps),
            add=columns.add_epoch,
        )
    result = train(
        model.config,
        model.initial_params,
        batches,
        train_settings(run, config.proxy.train),
        run.mesh,
        record.folder,
        label=f"proxy, {model.num_parameters / 1e6:.3g}M parameters",
        sweep_steps=swept,
        **measure,
    )
    done = len(result.losses)
    if done < steps:
        say(
            f"  the clusters have settled: training ended after {done} of {steps} steps, with "
            f"{len(columns.steps)} of {len(swept)} sweeps"
        )
    size = batches.size(done)
    record.finish(
        {
            "steps": done,
            "parameters": model.num_parameters,
            "examples_seen": done * config.proxy.train.batch_size,
            "tokens_seen": size.tokens,
            "training_flops": training_flops(model.config, size),
            "sweep_flops": (len(columns.steps) if swept else 0)
            * sweep_flops(run, pool, tracked, model.config),
            "final_loss": float(result.losses[-1]),
            "curve": curve(result.losses),
            "refreshes": [vars(refresh) for refresh in columns.clusters.records],
        }
        | ({"planned_steps": steps} if done < steps else {})
    )


def _sweeping(
    run: Run, pool: PreparedPool, tracked: Tracked, model: Model, columns: Columns, snapshots: epath.Path
) -> Callable[[int, Params], None]:
    """What the loop calls at the cadence: keeps a snapshot if asked to, then sweeps."""
    sweeps = Sweeps(run, pool, tracked, model.config, columns)

    def sweep(step: int, params: Params) -> None:
        # Before the column: once that is there, the step is not looked at again.
        if run.config.proxy.keep == "params" and step not in columns.steps:
            save_snapshot(
                snapshots / str(step),
                params,
                model.config,
                model.hf_config,
                made_with=snapshot_settings(run),
                tokenizer=model.tokenizer,
            )
        sweeps.at(step, params)

    return sweep


def curve(losses: Float32[np.ndarray, "s"], points: int = 500) -> dict[str, list]:
    """A loss history thinned to means over at most `points` equal stretches."""
    stretch = -(-len(losses) // points)
    ends = list(range(stretch, len(losses) + 1, stretch))
    if not ends or ends[-1] != len(losses):
        ends.append(len(losses))
    starts = [0, *ends[:-1]]
    means = [float(np.mean(losses[a:b])) for a, b in zip(starts, ends, strict=True)]
    return {"step": ends, "loss": means}


def _stopping(run: Run) -> dict[str, Any]:
    """The rule that ends training early; empty when there is none."""
    asked = run.config.trajectories
    if not asked.stop_when_stable:
        return {}
    return {"stop_when_stable": asked.stop_when_stable, "stable_above": asked.stable_above}


def _cadence(run: Run) -> Cadence:
    asked = run.config.trajectories
    return Cadence(asked.cadence, asked.every, asked.num_checkpoints, asked.steps, asked.step_zero)
