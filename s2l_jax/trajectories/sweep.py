"""The loss sweep: the loss of every tracked example under the given parameters, also as training goes on."""

import functools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int64

from s2l_jax.console import duration, waiting
from s2l_jax.data.packing import PackedRows
from s2l_jax.data.pool import PoolRow, row_of
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, tokenize
from s2l_jax.errors import DivergedError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import Prefix, shares_prefix
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.parameters import Params, model_params
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.placement import mesh_of
from s2l_jax.parallel.sharding import replicated, row_constraint, vocabulary_shards
from s2l_jax.training.boards import Shown
from s2l_jax.training.hooks import Hook
from s2l_jax.training.loss import example_losses as packed_losses
from s2l_jax.training.loss import read_prefix
from s2l_jax.trajectories.packed_dataset import PackedDataset
from s2l_jax.trajectories.writer import TrajectoryWriter

Sweep = Callable[[Params], Float32[Array, "n"]]


def make_sweep(
    config: DecoderConfig,
    dataset: PackedDataset,
    mesh: Mesh,
    *,
    dtype: Any = jnp.float32,
    attention: str = "auto",
) -> Sweep:
    """A function from parameters to the losses of a dataset, float32 [N], whole on every device.

    The loss of an example is its mean next-token cross-entropy over the response tokens
    (arXiv 2403.07384, section 3.1); 0 where none is left. A compiled program for each length of row
    scans the dataset's microbatches; `vmap` over row groups turns token losses into example losses.
    What all examples begin with is run once a sweep; the rows see its keys and values.
    """
    compiled, read = sweep_programs(config, mesh, jnp.dtype(dtype), attention)

    def sweep(params: Params) -> jax.Array:
        column = jax.device_put(jnp.zeros(len(dataset), jnp.float32), replicated(mesh))
        prefix = read(params, dataset.prefix) if len(dataset.prefix) else None
        for rows, slots in dataset.blocks():
            column = compiled(params, prefix, column, rows, slots)
        return column

    return sweep


@functools.lru_cache(maxsize=8)  # a program is compiled once for all sweeps of one model that have its shapes
def sweep_programs(
    config: DecoderConfig, mesh: Mesh, dtype: np.dtype, attention: str
) -> tuple[Callable[..., jax.Array], Callable[..., Prefix]]:
    """What adds a block's losses to a column, and what reads the prefix that all examples share."""
    constrain = row_constraint(mesh)
    attend = attention_on(mesh, config, dtype, attention)

    def scan_block(
        params: Params, prefix: Prefix | None, column: jax.Array, rows: PackedRows, slots: jax.Array
    ) -> jax.Array:
        def microbatch(column: jax.Array, xs: tuple[PackedRows, jax.Array]) -> tuple:
            rows, slots = xs
            losses = packed_losses(
                config, params, rows,
                dtype=dtype, constrain=constrain, attend=attend, prefix=prefix,
                vocab_shards=vocabulary_shards(mesh, config.padded_vocab_size),
            )  # fmt: skip
            # -1 would count from the end: slots without an example go past it, and are dropped.
            places = jnp.where(slots < 0, column.shape[0], slots)
            return column.at[places].set(losses, mode="drop"), None

        return jax.lax.scan(microbatch, column, (rows, slots))[0]

    compiled = jax.jit(scan_block, donate_argnums=2, out_shardings=replicated(mesh))
    return compiled, jax.jit(functools.partial(read_prefix, config, dtype=dtype))


class LossSweeper(Hook):
    """Has the loss of every example measured, as a column.

    Args:
      sweep: measures them.
      rows: of the pool, which they are, for errors.
      writer: takes the columns; a step that it has is not swept again.
      steps: the cadence, in finished training steps.
    """

    def __init__(
        self,
        sweep: Sweep,
        rows: Int64[np.ndarray, "n"],
        writer: TrajectoryWriter,
        steps: Collection[int] = (),
    ):
        self._sweep, self._rows, self._writer, self._steps = sweep, rows, writer, frozenset(steps)
        self._expected = ""

    def is_due(self, step: int) -> bool:
        return step in self._steps

    def at_cadence(self, step: int, params: Params) -> None:
        """Sweep, unless the column of `step` is there.

        Raises:
          DivergedError: a loss that is not finite.
        """
        if step in self._writer.steps:
            self._writer.show_again(step)
            return
        start = time.monotonic()
        with waiting(f"  sweeping {len(self._rows):,} examples at step {step}{self._expected}"):
            column = np.asarray(self._sweep(params))
        if not np.isfinite(column).all():
            bad = np.flatnonzero(~np.isfinite(column))
            raise DivergedError(
                f"the sweep at step {step} found {len(bad)} losses that are not finite; the first is pool "
                f"row {self._rows[bad[0]]}. Lower proxy.train.learning_rate, or use "
                "trajectories.dtype=float32."
            )
        seconds = duration(time.monotonic() - start)
        self._expected = f", the last took {seconds}"
        self._writer.add(step, column, f"swept {len(column)} examples in {seconds}")

    def shown(self) -> Shown | None:
        return self._writer.shown()


def example_losses(
    model: Decoder,
    tokenizer: Any,
    rows: Sequence[PoolRow | dict[str, Any]],
    *,
    prompt: str = "alpaca",
    max_length: int = 512,
    boundary: str = "separate",
    turns: str = "last",
    dtype: Any = jnp.float32,
    batch_tokens: int = 0,
    mesh: Mesh | None = None,
) -> Float32[np.ndarray, "n"]:
    """The loss of each row under a model: mean cross-entropy over its response tokens, in nats.

    Args:
      model: from `load_model`.
      tokenizer: a transformers tokeniser.
      rows: pool rows, or mappings with instruction, output and, where there is one, input, or with
        messages.
      prompt: name of the template.
      max_length: tokens kept of each example; 0 is the loss of one whose response is cut away.
      boundary: see `data.tokens.tokenize`.
      turns: see `data.prompts.render`.
      dtype: of matrix products and activations.
      batch_tokens: tokens worked on at a time, per device; 0: as many as suit it.
      mesh: where the model lies; read off its parameters if absent.

    Raises:
      InputError: a row that cannot be used, or a template that has no room for it.
    """
    if not rows:
        return np.zeros(0, np.float32)
    texts = [
        render(prompt, row if isinstance(row, PoolRow) else row_of(row, f"row {number}"), tokenizer, turns)
        for number, row in enumerate(rows)
    ]
    examples = TokenizedList(
        tokenize(tokenizer, texts, max_length=max_length, boundary=boundary, template=prompt)
    )
    mesh = mesh or mesh_of(model)
    return tokenized_losses(
        model, examples, max_length=max_length, dtype=dtype, mesh=mesh, batch_tokens=batch_tokens
    )


def tokenized_losses(
    model: Decoder,
    examples: TokenizedList,
    *,
    max_length: int,
    dtype: Any,
    mesh: Mesh,
    batch_tokens: int = 0,
    attention: str = "auto",
) -> Float32[np.ndarray, "n"]:
    """`example_losses` of examples that are tokenised already."""
    dataset = PackedDataset(
        examples,
        np.arange(len(examples.lengths)),
        mesh,
        max_length=max_length,
        batch_tokens=batch_tokens,
        pinned_bytes=2**32,
        share_prefix=shares_prefix(model.config, max_length),
    )
    sweep = make_sweep(model.config, dataset, mesh, dtype=dtype, attention=attention)
    return np.asarray(sweep(model_params(model)))
