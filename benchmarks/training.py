"""The training step of s2l_jax against PyTorch: same model, examples per step and machine, taking turns.

    pip install torch
    python benchmarks/training.py
    python benchmarks/training.py --config=config.json --tokenizer=DIRECTORY --rows=pool.jsonl

s2l_jax     the step of a run, fed by its loader: batch-exact packing, response-only logits, AdamW, clipping
official    the settings of the published runs: the step's examples grouped by length, --micro at a time
            padded to their longest and accumulated, all logits, transformers' loss, AdamW, clipping; with
            --dtype=bfloat16 under autocast
strong      torch.compile, sdpa attention without a mask, fused AdamW, examples sorted by length in batches of
            the number of tokens that it finds fastest, logits of response positions alone; with
            --dtype=bfloat16 under autocast

PyTorch's batches are padded and put on the device before the clock starts; those of s2l_jax are not. Every
contender has a process of its own and works only in its turn; the best round counts, the first, which
compiles, left out. Model FLOPs are three forward passes (see benchmarks/trajectories.py): neither padding nor
recomputation nor prompt logits. What all rows begin with counts in each of them, though s2l_jax may run it
once a microbatch; the table of its parts has what it runs. Utilisation is theirs over the largest rate that a
matrix product reached.

Where the time of s2l_jax goes is found by leaving parts out of forward and backward pass: the vocabulary by
keeping 8 response positions, attention by putting the values in its place. Beside each part is the time that
its FLOPs take at the ceiling.
"""

import argparse
import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import contenders
import numpy as np
import peers
from contenders import Contender, Rows

OURS = "s2l_jax"


def main() -> None:
    parser = contenders.parser(__doc__, num_rows=4096)
    parser.add_argument("--contenders", default="s2l_jax,official,strong", help="which of them, ours first")
    parser.add_argument("--rounds", type=int, default=3, help="beside the one that compiles")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps of a round")
    parser.add_argument("--batch", type=int, default=128, help="examples of a step")
    parser.add_argument("--accumulation", type=int, default=1, help="microbatches of a step, ours")
    parser.add_argument("--remat", default="none", help="train.remat, ours")
    parser.add_argument("--input-steps", type=int, default=4, help="to compare the loader with one batch")
    parser.add_argument("--micro", type=int, default=4, help="examples of a microbatch, official")
    parser.add_argument("--peer-tokens", type=int, default=0, help="tokens of a strong batch; 0: the fastest")
    parser.add_argument("--compile", type=int, default=1, help="0: no torch.compile")
    options = parser.parse_args()
    wanted = options.contenders.split(",")
    taken = (options.rounds + 1) * options.steps
    options.total = max(taken, options.input_steps)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        checkpoint, rows = contenders.prepare(options, folder)
        work = _work(checkpoint, rows, options)
        batches = contenders.batches(rows, options, options.total)
        steps = [batches.indices(step).tolist() for step in range(taken)]
        makers: dict[str, tuple] = {
            OURS: (ours, checkpoint, rows, options),
            "official": (peers.official_training, checkpoint, rows, steps, options),
            "strong": (peers.strong_training, checkpoint, rows, steps, options),
        }
        running = {name: stack.enter_context(Contender(name, *makers[name])) for name in wanted}
        seconds: dict[str, list[float]] = {name: [] for name in running}
        losses: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(options.rounds + 1):
            for name, contender in running.items():
                took, values = contender.timed("run")
                seconds[name].append(took)
                losses[name] += values
        peaks = {name: contender.ask("peak") for name, contender in running.items()}
        notes = {name: contender.ask("note") for name, contender in running.items()}
        parts = running[OURS].ask("parts") if OURS in running else {}
        ceilings = contenders.ceilings(running, [options.dtype])
    ceiling = ceilings[options.dtype]["best"]
    lines = []
    for name in running:
        # Rounds see other examples: the round with the best rate, not the shortest one, counts.
        rates = [work["flops"][r] / took for r, took in enumerate(seconds[name]) if r]
        r = 1 + int(np.argmax(rates))
        lines.append(
            {
                "": name,
                "seconds a step": seconds[name][r] / options.steps,
                "rows/s": options.steps * options.batch / seconds[name][r],
                "tokens/s": work["tokens"][r] / seconds[name][r],
                "utilisation %": 100 * max(rates) / ceiling,
                "host GB": peaks[name]["host"],
                "device GB": peaks[name]["device"],
                "first round s": seconds[name][0],
            }
        )
    comparisons = []
    for line in lines[1:] if wanted[0] == OURS else []:
        theirs, mine = np.array(losses[line[""]]), np.array(losses[OURS])
        each = np.array(seconds[line[""]][1:]) / np.array(seconds[OURS][1:])
        comparisons.append(
            {
                "s2l_jax against": line[""],
                "times as fast, best of each": lines[0]["utilisation %"] / line["utilisation %"],
                "least of a round": float(each.min()),
                "largest relative loss difference": float(np.max(np.abs(mine - theirs) / np.abs(theirs))),
            }
        )
    print(contenders.machine())
    print(
        f"{options.batch} rows a step of {options.rows}, "
        f"{np.mean(work['tokens']) / options.steps:,.0f} tokens, "
        f"{np.mean(work['loss_tokens']) / options.steps:,.0f} of them responses, "
        f"{np.mean(work['flops']) / options.steps / 1e12:.3g} TFLOP; {options.dtype}"
    )
    print(contenders.named(ceilings))
    print("; ".join(f"{name}: {note}" for name, note in notes.items()))
    print(f"\n{contenders.table(lines)}")
    if comparisons:
        print(f"\n{contenders.table(comparisons)}")
    if parts:
        print(f"\n{contenders.table(_parts(parts, ceiling))}\n")
        print(
            f"steps fed by the loader {parts['loader']:.3g} s each, on one batch again and again "
            f"{parts['repeated']:.3g} s; the loader alone needs {parts['loading']:.3g} s a batch"
        )
    contenders.write_json(
        options.json,
        {
            "machine": contenders.machine(),
            "options": vars(options),
            "work": work,
            "ceilings": ceilings,
            "notes": notes,
            "seconds": seconds,
            "losses": losses,
            "contenders": lines,
            "comparisons": comparisons,
            "parts": parts,
        },
    )


def _parts(parts: dict[str, Any], ceiling: float) -> list[dict[str, Any]]:
    whole = parts["repeated"]
    table = []
    for name, (took, flops) in parts["parts"].items():
        line = {"where the time goes": name, "seconds": took, "share %": 100 * took / whole}
        table.append(line | {"at the ceiling": flops / ceiling, "lost": took - flops / ceiling})
    return table


def _work(checkpoint: str, rows: Rows, options: argparse.Namespace) -> dict[str, list[float]]:
    """Tokens, response tokens and model FLOPs of each round."""
    from s2l_jax.data.batching import Size, size_of
    from s2l_jax.models.hf import load_config
    from s2l_jax.training.flops import training_flops

    config, batches = load_config(checkpoint), contenders.batches(rows, options, options.total)
    rounds = []
    for r in range(options.rounds + 1):
        steps = range(r * options.steps, (r + 1) * options.steps)
        rounds.append(sum((size_of(rows, batches.indices(s)) for s in steps), Size(0, 0, 0)))
    return {
        "tokens": [size.tokens for size in rounds],
        "loss_tokens": [size.loss_tokens for size in rounds],
        "flops": [training_flops(config, size) for size in rounds],
    }


def ours(checkpoint: str, rows: Rows, options: argparse.Namespace) -> dict[str, Callable]:
    """The step as the loop of a run takes it, from the loader's batches."""
    import jax

    from s2l_jax.models.attention import attend, shares_prefix
    from s2l_jax.models.parameters import model_params
    from s2l_jax.models.weights import DTYPES
    from s2l_jax.parallel.attention import attention_on
    from s2l_jax.parallel.host_memory import keep_freed_memory
    from s2l_jax.parallel.mesh import make_mesh, row_groups
    from s2l_jax.parallel.placement import load_model
    from s2l_jax.parallel.sharding import put_rows
    from s2l_jax.training.optimizer import OptimizerSettings
    from s2l_jax.training.step import init_state, make_train_step

    if jax.default_backend() == "cpu":
        keep_freed_memory()  # as launch.py does
    mesh = make_mesh()
    model = load_model(checkpoint, mesh)
    config, settings = model.config, OptimizerSettings(**peers.TRAINING)
    step = make_train_step(
        config, settings, options.total, mesh, dtype=DTYPES[options.dtype], remat=options.remat
    )
    shared = attention_on(mesh, config, DTYPES[options.dtype]) is attend
    shared = shared and shares_prefix(config, options.max_length)
    batches = contenders.batches(rows, options, options.total, row_groups(mesh), share_prefix=shared)
    state = init_state(config, settings, options.total, mesh, model_params(model))
    loader = batches.from_step(0)

    def run(source: Iterator = loader, count: int = options.steps) -> list[float]:
        nonlocal state
        values = []
        for batch in itertools.islice(source, count):
            state, metrics = step(state, put_rows(mesh, batch.rows, axis=1))
            values.append(metrics.loss)
        return [float(value) for value in values]

    def parts() -> dict[str, Any]:
        batch, count = batches.read(0), options.input_steps
        # A new loader: one that was idle while others worked has read ahead.
        fed = _seconds(lambda: run(batches.from_step(0), count), 1, warm=0) / count
        same = _seconds(lambda: run(itertools.repeat(batch), count), 1, warm=0) / count
        reading = _seconds(lambda: [batches.read(s) for s in range(count)], 1, warm=0) / count
        found = _breakdown(config, settings, state, batch, mesh, options, same)
        return {"parts": found, "repeated": same, "loader": fed, "loading": reading}

    return {
        "run": run,
        "parts": parts,
        "note": lambda: (
            f"{jax.devices()[0].device_kind}, row counts {[s.rows for s in batches.shapes]} of "
            f"{batches.row_length} tokens"
        ),
        "ceiling": contenders.jax_ceiling,
    }


def _breakdown(
    config: Any, settings: Any, state: Any, batch: Any, mesh: Any, options: argparse.Namespace, whole: float
) -> dict[str, tuple[float, float]]:
    """Seconds and FLOPs of the parts of a step on one batch."""
    import jax
    import jax.numpy as jnp
    import optax

    from s2l_jax.models.weights import DTYPES
    from s2l_jax.parallel.attention import attention_on
    from s2l_jax.parallel.sharding import put_rows, row_constraint
    from s2l_jax.training.flops import training_flops
    from s2l_jax.training.loss import token_mean, training_loss
    from s2l_jax.training.optimizer import make_optimizer

    dtype = DTYPES[options.dtype]
    rows = put_rows(mesh, batch.rows, axis=1)
    few = rows._replace(
        **{name: getattr(rows, name)[..., :8] for name in rows._fields if name.startswith("loss_")}
    )
    real = attention_on(mesh, config, dtype, "auto")

    def none(query: jax.Array, key: jax.Array, value: jax.Array, **_: Any) -> jax.Array:
        """In attention's place: keeps all three alive."""
        shared = jnp.repeat(key + value, query.shape[2] // key.shape[2], axis=2)
        return query + shared

    def seconds(rows: Any, attend: Any) -> float:
        @jax.jit
        def gradients(params: Any, rows: Any) -> Any:
            def total(params: Any, microbatch: Any) -> jax.Array:
                return training_loss(
                    config, params, microbatch, token_mean(microbatch),
                    dtype=dtype, remat=options.remat, attend=attend, constrain=row_constraint(mesh),
                )[0]  # fmt: skip

            each = (jax.grad(total)(params, jax.tree.map(lambda x, i=i: x[i], rows)) for i in range(count))
            return jax.tree.map(lambda *parts: sum(parts), *each)

        count = rows.tokens.shape[0]
        return _seconds(lambda: jax.block_until_ready(gradients(state.params, rows)), options.rounds)

    full, no_vocabulary, neither = seconds(rows, real), seconds(few, real), seconds(few, none)
    optimizer = make_optimizer(settings, options.total)

    @jax.jit
    def update(grads: Any, opt_state: Any, params: Any) -> Any:
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def apply() -> None:
        jax.block_until_ready(update(state.params, state.opt_state, state.params))

    size = batch.size
    alone = dataclasses.replace(size, loss_tokens=0)
    layers = training_flops(config, dataclasses.replace(alone, pairs=0))
    attention = training_flops(config, alone) - layers
    vocabulary = training_flops(config, size) - layers - attention
    optimiser = _seconds(apply, options.rounds)
    return {
        "layers but attention": (neither, layers),
        "attention": (no_vocabulary - neither, attention),
        "vocabulary": (full - no_vocabulary, vocabulary),
        "optimiser, not donated": (optimiser, 0.0),
        "the rest": (whole - full - optimiser, 0.0),
        "step": (whole, training_flops(config, size)),
    }


def _seconds(run: Callable[[], object], rounds: int, warm: int = 1) -> float:
    """The shortest of some runs."""
    best = float("inf")
    for number in range(warm + max(1, rounds)):
        start = time.perf_counter()
        run()
        if number >= warm:
            best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
