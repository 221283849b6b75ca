"""LESS's checkpoints: the target's adapters, warmed up on a part of the pool."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jaxtyping import Float32, Int64

from s2l_jax import integrity
from s2l_jax.console import say
from s2l_jax.data.batching import Examples
from s2l_jax.data.order import priorities
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.features.compute.example_gradients import AdamMoments, ExampleGradients
from s2l_jax.gather import to_host
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.lora import Lora, available
from s2l_jax.models.parameters import Params
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.parallel.placement import random_adapters
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training.optimizer import learning_rate_schedule
from s2l_jax.training.run import Run, make_batches, train_settings, trainable
from s2l_jax.training.step import TrainState, abstract_state, init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Adapters after an epoch, and what Adam had of them."""

    adapters: Params
    moments: AdamMoments
    learning_rate: float  # mean over the epoch that ended with it


class WarmTarget:
    """The target with adapters warmed up on a random part of the pool, as `selection.gradients` says.

    The state after each epoch is kept in `folder`.
    """

    def __init__(self, run: Run, pool: PreparedPool, folder: epath.Path):
        asked, model = run.config.selection.gradients, run.model("target")
        known = available(model.config.gated_mlp)
        names = tuple(name for name in known if asked.projections == ("all",) or name in asked.projections)
        self.config = dataclasses.replace(model.config, lora=Lora(asked.rank, asked.alpha, names))
        self._frozen = model.initial_params(DTYPES[asked.dtype])
        self.checkpoints = _warm_up(run, self.config, pool, folder, self._frozen)
        self._gradients = ExampleGradients(
            self.config,
            run.mesh,
            dims=asked.dims,
            seed=run.config.seed,
            batch_tokens=asked.batch_tokens,
            dtype=DTYPES[asked.dtype],
        )

    def gradients(
        self, examples: Examples, indices: Int64[np.ndarray, " b"], *, updates: bool
    ) -> Float32[np.ndarray, "b c p"]:
        """The projected gradients of some examples at all checkpoints; or Adam's updates for each."""
        found = [
            self._gradients.of(self._frozen, at.adapters, examples, indices, at.moments if updates else None)
            for at in self.checkpoints
        ]
        return np.stack(found, axis=1)


def _warm_up(
    run: Run, config: DecoderConfig, pool: PreparedPool, folder: epath.Path, frozen: Params
) -> list[Checkpoint]:
    """Train the adapters on a random part of the pool; the state after each epoch (LESS, section 3.3)."""
    asked = run.config.selection.gradients
    rows = _warm_up_rows(pool, asked.warmup_fraction, run.config.seed)
    train = run.config.target.train.copy_and_resolve_references()
    train.update(
        learning_rate=asked.learning_rate, batch_size=asked.batch_size, accumulation=1, dtype=asked.dtype
    )
    steps = epoch_ends(len(rows), asked.batch_size, asked.epochs)
    optimizer = train_settings(run, train).optimizer
    like = abstract_state(config, optimizer, steps[-1], run.mesh)
    files = [folder / f"warmup_{epoch}.npz" for epoch in range(1, asked.epochs + 1)]
    if not all(file.exists() for file in files):
        batches = make_batches(run, pool, rows, np.ones(len(rows), np.float32), config, train, steps[-1])
        step_fn = make_train_step(
            config, optimizer, steps[-1], run.mesh, loss=train.loss, dtype=DTYPES[asked.dtype],
            remat=train.remat, attention=run.config.attention,
        )  # fmt: skip
        finished = list(itertools.takewhile(lambda file: file.exists(), files))
        if finished:
            state = _read(finished[-1], like)
        else:
            key = jax.random.fold_in(jax.random.key(run.config.seed), 2)
            adapters = random_adapters(config, run.mesh, key)
            state = init_state(config, optimizer, steps[-1], run.mesh, adapters)
        for batch in batches.from_step(int(state.step)):
            state, values = step_fn(state, put_rows(run.mesh, batch.rows, axis=1), frozen)
            if batch.step + 1 in steps:
                epoch = steps.index(batch.step + 1)
                if not np.isfinite(loss := float(values.loss)):
                    raise DivergedError(f"{folder}: the warm-up's loss is {loss}; lower its learning_rate")
                say(f"  gradients: warm-up epoch {epoch + 1} of {asked.epochs}, loss {loss:.3f}")
                _write(files[epoch], state)
    rate = learning_rate_schedule(optimizer, steps[-1])
    found = []
    for file, begin, end in zip(files, [0, *steps], steps, strict=False):
        state = _read(file, like)
        moments = AdamMoments(
            optax.tree.get(state.opt_state, "mu"),
            optax.tree.get(state.opt_state, "nu"),
            int(state.step),
            optimizer.beta1,
            optimizer.beta2,
            optimizer.epsilon,
        )
        mean_rate = float(np.mean([rate(step) for step in range(begin, end)]))
        found.append(Checkpoint(state.params, moments, mean_rate))
    return found


def epoch_ends(num_rows: int, batch_size: int, epochs: int) -> list[int]:
    """The step that each epoch ends with; it is one at least, where a batch has more rows than there are."""
    ends = (math.ceil(epoch * num_rows / batch_size) for epoch in range(1, epochs + 1))
    return list(itertools.accumulate(ends, lambda before, end: max(end, before + 1)))


def _warm_up_rows(pool: PreparedPool, fraction: float, seed: int) -> Int64[np.ndarray, " b"]:
    rows = trainable(pool)
    order = np.argsort(priorities(np.asarray(pool.ids)[rows], seed), kind="stable")
    return np.sort(rows[order[: max(1, round(fraction * len(rows)))]])


def _write(file: epath.Path, state: TrainState) -> None:
    """Store a state; it is adapters and their moments, and small."""
    leaves = [to_host(leaf) for leaf in jax.tree.leaves(state)]
    if processes.is_writer():
        integrity.write_npz(file, {str(number): leaf for number, leaf in enumerate(leaves)})
    processes.barrier(file.name)


def _read(file: epath.Path, like: TrainState) -> TrainState:
    try:
        stored = integrity.read_npz(file)
    except InputError as error:
        raise InputError(f"{error} Remove it and run the same command, which makes it again.") from error
    leaves = [stored[str(number)] for number in range(len(stored))]
    shapes, structure = jax.tree.flatten(like)
    placed = [
        jax.device_put(jnp.asarray(leaf, shape.dtype), shape.sharding)
        for leaf, shape in zip(leaves, shapes, strict=True)
    ]
    return jax.tree.unflatten(structure, placed)
