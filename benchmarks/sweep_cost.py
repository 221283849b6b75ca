"""What trajectories cost beside the training they accompany, in seconds and in FLOPs.

    python benchmarks/sweep_cost.py
    python benchmarks/sweep_cost.py --config=config.json --tokenizer=DIRECTORY --rows=pool.jsonl

Times the real training step, the step that also keeps example losses and records them ("free" trajectories),
the sweep over all rows and the one over a stratified quarter; in turns, the shortest of each counts, after a
round that compiles. An epoch is its number of steps times the mean of those taken. Printed are twelve sweeps
over three epochs, twelve of the quarter over three epochs, and what free trajectories add to a step. Both
sides of a ratio grow with the number of rows, so a sample of the pool is enough.
"""

import argparse
import tempfile
import time
import types
from collections.abc import Callable
from typing import Any

import contenders
import numpy as np
import peers
from contenders import Rows
from etils import epath

from s2l_jax.data.batching import Batch, Size, size_of
from s2l_jax.models.attention import attend, shares_prefix
from s2l_jax.models.hf import load_config
from s2l_jax.models.parameters import model_params
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.mesh import make_mesh, row_groups
from s2l_jax.parallel.placement import load_model
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training.flops import forward_flops, training_flops
from s2l_jax.training.hooks import FinishedStep
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import init_state, make_train_step
from s2l_jax.trajectories.packed_dataset import PackedDataset
from s2l_jax.trajectories.slices import stratified_rows
from s2l_jax.trajectories.sweep import make_sweep
from s2l_jax.trajectories.training_losses import TrainingLossRecorder

SWEEPS, EPOCHS = 12, 3  # of the published runs


def main() -> None:
    parser = contenders.parser(__doc__, num_rows=2048)
    parser.add_argument("--batch", type=int, default=128, help="examples of a step")
    parser.add_argument("--accumulation", type=int, default=1, help="microbatches of a step")
    parser.add_argument("--steps", type=int, default=4, help="training steps of a round")
    parser.add_argument("--rounds", type=int, default=2, help="beside the one that compiles")
    parser.add_argument("--batch-tokens", type=int, default=16_384, help="trajectories.batch_tokens")
    parser.add_argument("--sweep-dtype", default="", help="trajectories.dtype; default: --dtype")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, rows = contenders.prepare(options, folder)
        measured = _measure(checkpoint, rows, options, epath.Path(folder))
        config = load_config(checkpoint)
    count = len(rows.tokens)
    whole = size_of(rows, np.arange(count))
    # Steps see what their examples weigh: brought to the epoch's FLOPs, few of them stand for all.
    scale = training_flops(config, whole) / training_flops(config, measured["size"])
    epoch, free = (scale * measured[name] for name in ("step", "free"))
    flops = {
        "epoch": training_flops(config, whole),
        "epoch, losses kept": training_flops(config, whole),
        "full sweep": forward_flops(config, whole),
        "quarter sweep": forward_flops(config, size_of(rows, measured["quarter rows"])),
    }
    seconds = dict(zip(flops, (epoch, free, measured["full"], measured["quarter"]), strict=True))
    lines = [
        {"": name, "seconds": s, "TFLOP": flops[name] / 1e12, "TFLOP/s": flops[name] / s / 1e12}
        for name, s in seconds.items()
    ]
    ratios = {
        f"{SWEEPS} sweeps / {EPOCHS} epochs": SWEEPS * seconds["full sweep"] / (EPOCHS * epoch),
        "the same by FLOPs": SWEEPS * flops["full sweep"] / (EPOCHS * flops["epoch"]),
        f"{SWEEPS} quarter sweeps / {EPOCHS} epochs": SWEEPS * seconds["quarter sweep"] / (EPOCHS * epoch),
        "free trajectories' share of a step": free / epoch - 1,
    }
    print(contenders.machine())
    print(
        f"{count} rows of {options.rows}: {whole.tokens} tokens, {whole.loss_tokens} of them responses; "
        f"{options.batch} rows a step, {count / options.batch:.4g} steps an epoch; training in "
        f"{options.dtype}, sweeps in {options.sweep_dtype or options.dtype}"
    )
    print(f"\n{contenders.table(lines)}\n")
    for name, ratio in ratios.items():
        print(f"{name:38s} {ratio:.3f}")
    contenders.write_json(options.json, {"options": vars(options), "times": lines, "ratios": ratios})


def _measure(checkpoint: str, rows: Rows, options: argparse.Namespace, folder: epath.Path) -> dict[str, Any]:
    """Seconds of steps, steps with losses kept, and sweeps; the size of the steps taken."""
    mesh = make_mesh()
    model = load_model(checkpoint, mesh)
    everything = np.arange(len(rows.tokens))
    num_steps = max(options.steps, -(-len(everything) // options.batch))
    settings = OptimizerSettings(**peers.TRAINING)
    shared = attention_on(mesh, model.config, DTYPES[options.dtype]) is attend
    shared = shared and shares_prefix(model.config, options.max_length)
    batches = contenders.batches(rows, options, num_steps, row_groups(mesh), share_prefix=shared)
    state = init_state(model.config, settings, num_steps, mesh, model_params(model))

    def training(keep: bool) -> Callable[[], None]:
        step = make_train_step(
            model.config, settings, num_steps, mesh, dtype=DTYPES[options.dtype], keep_losses=keep
        )

        def run() -> None:
            nonlocal state
            columns: Any = types.SimpleNamespace(steps=[], add=lambda *_: None)
            recorder = TrainingLossRecorder(folder, everything, everything, options.batch, columns)
            for number in range(options.steps):
                batch = batches.read(number)
                state, values = step(state, put_rows(mesh, batch.rows, axis=1))
                loss = float(values.loss)
                if keep:
                    losses = _by_example(batch, np.asarray(values.example_losses))
                    recorder.after_step(FinishedStep(batch, loss, 0.0, 0.0, losses))

        return run

    def sweeping(numbers: np.ndarray) -> Callable[[], np.ndarray]:
        tracked = PackedDataset(
            rows,
            numbers,
            mesh,
            max_length=options.max_length,
            batch_tokens=options.batch_tokens,
            pinned_bytes=2**32,
        )
        sweep = make_sweep(model.config, tracked, mesh, dtype=DTYPES[options.sweep_dtype or options.dtype])
        return lambda: np.asarray(sweep(state.params))

    priority = np.random.default_rng(0).permutation(len(everything)).astype(np.uint64)
    quarter = stratified_rows(np.zeros(len(everything), int), priority, max(1, len(everything) // 4))
    runs = {
        "step": training(False),
        "free": training(True),
        "full": sweeping(everything),
        "quarter": sweeping(quarter),
    }
    best = dict.fromkeys(runs, float("inf"))
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                best[name] = min(best[name], time.perf_counter() - start)
    taken = [size_of(rows, batches.indices(number)) for number in range(options.steps)]
    return best | {"size": sum(taken, Size(0, 0, 0)), "quarter rows": quarter}


def _by_example(batch: Batch, values: np.ndarray) -> np.ndarray:
    """Losses by slot in the order of the batch's examples."""
    losses = np.zeros(len(batch.examples), np.float32)
    held = batch.slots >= 0
    losses[batch.slots[held]] = values[held]
    return losses


if __name__ == "__main__":
    main()
