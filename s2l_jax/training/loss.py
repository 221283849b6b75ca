"""Losses of packed rows at response positions alone: of each example, and the sum that training minimises."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, UInt32

from s2l_jax.data.packing import PackedRows
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import Attend, Prefix, attend
from s2l_jax.models.decoder import Constrain, pick
from s2l_jax.models.layers import Head
from s2l_jax.models.parameters import Params, bind
from s2l_jax.training.cross_entropy import token_losses, weighted_loss


def example_losses(
    config: DecoderConfig,
    params: Params,
    rows: PackedRows,
    *,
    dtype: Any,
    constrain: Constrain = lambda x: x,
    attend: Attend = attend,
    prefix: Prefix | None = None,
    vocab_shards: int = 1,
) -> Float32[Array, "g e"]:
    """The mean loss over each example's response tokens, of one microbatch.

    Args:
      params: in any dtype.
      rows: packed rows without the leading microbatch axis.
      dtype: of matrix products and activations; softmax and sums are float32.
      constrain: sharding constraint for activations, leading axis rows.
      attend: how attention is computed (`parallel.attention.attention_on`).
      prefix: of `read_prefix`, what the rows leave out because all examples begin with it.
      vocab_shards: devices that the vocabulary is spread over.
    """
    head, hidden = _run(config, params, rows, dtype, constrain, attend, prefix)
    return _by_example(token_losses(head, hidden, rows.loss_targets, vocab_shards=vocab_shards), rows)


def training_loss(
    config: DecoderConfig,
    params: Params,
    rows: PackedRows,
    weights: Float32[Array, "g m"],
    *,
    dtype: Any,
    remat: str = "none",
    constrain: Constrain = lambda x: x,
    attend: Attend = attend,
    noise: UInt32[Array, "n g r l"] | None = None,
) -> tuple[Float32[Array, ""], Float32[Array, "g e"]]:
    """The weighted sum of token losses, and `example_losses`, which pass no gradient on.

    What all examples begin with (`rows.prefix`) is run once, and given its gradient. The other
    arguments are those of `example_losses`, and:

    Args:
      weights: of token losses, as a `LossFunction` gives them.
      remat: a name in models.decoder.REMAT_POLICIES.
      noise: what the dropout of adapters follows from (`lora.dropout_noise`); None: no dropout.
    """
    prefix = None
    if rows.prefix is not None:
        prefix = read_prefix(config, params, rows.prefix[0], dtype=dtype)
    head, hidden = _run(config, params, rows, dtype, constrain, attend, prefix, remat=remat, noise=noise)
    total, losses = weighted_loss(config.lora is None, head, hidden, rows.loss_targets, weights)
    return total, _by_example(losses, rows)


def token_mean(rows: PackedRows) -> Float32[Array, "*a g m"]:
    """Each response token counts alike: their summed cross-entropy over their number."""
    mask = rows.loss_mask.astype(jnp.float32)
    return mask / _positive(mask.sum())


def example_mean(rows: PackedRows) -> Float32[Array, "*a g m"]:
    """The mean over examples of their mean losses, weighted by `rows.weights`."""
    mask = rows.loss_mask.astype(jnp.float32)
    shares = rows.weights / jnp.maximum(_sum_by_slot(mask, rows), 1.0)
    of_slot = jnp.vectorize(lambda share, slot: share.at[slot].get(mode="clip"), signature="(e),(m)->(m)")
    return mask * of_slot(shares, rows.loss_slot) / _positive(rows.weights.sum())


# What each token's cross-entropy counts in the loss of a step; 0 where `rows.loss_mask` is false. It sees
# the rows of all microbatches and groups, so that accumulation, packing and the mesh change nothing.
LossFunction = Callable[[PackedRows], Float32[Array, "*a g m"]]
LOSSES: dict[str, LossFunction] = {"token": token_mean, "example": example_mean}


def read_prefix(config: DecoderConfig, params: Params, tokens: Int32[Array, "p"], *, dtype: Any) -> Prefix:
    """Keys and values, by layer, of tokens before all rows."""
    return bind(config, jax.tree.map(lambda p: p.astype(dtype), params)).read_prefix(tokens)


def _positive(total: jax.Array) -> jax.Array:
    return jnp.maximum(total, jnp.finfo(jnp.float32).tiny)


def _by_example(losses: Float32[Array, "g m"], rows: PackedRows) -> Float32[Array, "g e"]:
    mask = rows.loss_mask.astype(jnp.float32)
    return _sum_by_slot(losses * mask, rows) / jnp.maximum(_sum_by_slot(mask, rows), 1.0)


def _sum_by_slot(values: Float32[Array, "*a g m"], rows: PackedRows) -> Float32[Array, "*a g e"]:
    num_slots = rows.weights.shape[-1]
    summed = functools.partial(jax.ops.segment_sum, num_segments=num_slots + 1, indices_are_sorted=True)
    return jnp.vectorize(summed, signature="(m),(m)->(n)")(values, rows.loss_slot)[..., :-1]


def _run(
    config: DecoderConfig,
    params: Params,
    rows: PackedRows,
    dtype: Any,
    constrain: Constrain,
    attend: Attend,
    prefix: Prefix | None,
    *,
    remat: str = "none",
    noise: jax.Array | None = None,
) -> tuple[Head, Float[Array, "g m e"]]:
    """The model's head, and the final hidden states that it is applied to."""
    model = bind(config, jax.tree.map(lambda p: p.astype(dtype), params))
    groups, per_group, length = rows.tokens.shape
    flat = (groups * per_group, length)
    hidden = model(
        rows.tokens.reshape(flat),
        rows.positions.reshape(flat),
        rows.segments.reshape(flat),
        remat=remat,
        constrain=constrain,
        attend=attend,
        noise=None if noise is None else noise.reshape(-1, *flat),
        prefix=prefix,
    )
    return model.head(), constrain(pick(rows.loss_index, hidden))
