"""Cross-entropy at response positions alone, per token and per example."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from s2l_jax.data.packing import PackedRows
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import Attend, Prefix, attend
from s2l_jax.models.decoder import Constrain, Decoder
from s2l_jax.models.parameters import Params, bind

_LOGITS_AT_ONCE = 2**25  # elements of one chunk of logits, per row group


def example_losses(
    config: DecoderConfig,
    params: Params,
    rows: PackedRows,
    *,
    dtype: Any,
    remat: str = "none",
    constrain: Constrain = lambda x: x,
    attend: Attend = attend,
    noise: UInt32[Array, "n g r l"] | None = None,
    prefix: Prefix | None = None,
) -> tuple[Float32[Array, "g e"], Float32[Array, "g m"]]:
    """Losses of one microbatch: the mean over each example's response tokens, and of each token.

    Args:
      config: settings of the decoder.
      params: its parameters, in any dtype.
      rows: packed rows without the leading microbatch axis.
      dtype: of matrix products and activations; softmax and sums are float32.
      remat: a name in models.decoder.REMAT_POLICIES.
      constrain: sharding constraint for activations, leading axis rows.
      attend: how attention is computed (`parallel.attention.attention_on`).
      noise: what the dropout of adapters follows from (`lora.dropout_noise`); None: no dropout.
      prefix: what the rows leave out because all examples begin with it (`Decoder.read_prefix`).
    """
    losses = _token_losses(
        config, params, rows,
        dtype=dtype, remat=remat, constrain=constrain, attend=attend, noise=noise, prefix=prefix,
    )  # fmt: skip
    num_slots = rows.weights.shape[-1]
    sums, counts = (
        jax.vmap(functools.partial(_sum_by_slot, num_slots=num_slots))(x, rows.loss_slot)
        for x in (losses, rows.loss_mask.astype(jnp.float32))
    )
    return sums / jnp.maximum(counts, 1.0), losses


def _sum_by_slot(values: Float32[Array, "m"], slot: Int32[Array, "m"], num_slots: int) -> Float32[Array, "e"]:
    return jax.ops.segment_sum(values, slot, num_slots + 1, indices_are_sorted=True)[:-1]


def _token_losses(
    config: DecoderConfig,
    params: Params,
    rows: PackedRows,
    *,
    dtype: Any,
    remat: str,
    constrain: Constrain,
    attend: Attend,
    noise: jax.Array | None,
    prefix: Prefix | None,
) -> Float32[Array, "g m"]:
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
    hidden = hidden.reshape(groups, per_group * length, -1)
    # Gathers whole vectors; take_along_axis would gather, and scatter back, element by element.
    needed = jax.vmap(lambda vectors, index: vectors[index])(hidden, rows.loss_index)
    return _cross_entropy(model, constrain(needed), rows.loss_targets, rows.loss_mask)


def _cross_entropy(
    model: Decoder,
    hidden: Float[Array, "g m e"],
    targets: Int32[Array, "g m"],
    mask: Bool[Array, "g m"],
) -> Float32[Array, "g m"]:
    """Token losses, 0 where masked; logits exist for one chunk of positions at a time."""

    @jax.checkpoint
    def chunk_losses(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = model.padded_logits(chunk[0])
        # A masked sum fuses with the softmax, forwards and backwards; a gather does not.
        is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == chunk[1][..., None]
        picked = jnp.where(is_target, logits, 0.0).sum(axis=-1)
        return jax.nn.logsumexp(logits, axis=-1) - picked

    groups, tokens = targets.shape
    size = max(64, _LOGITS_AT_ONCE // model.config.padded_vocab_size // 64 * 64)
    if tokens <= size:
        losses = chunk_losses((hidden, targets))
    else:
        pad = -tokens % size
        chunks = tuple(
            jnp.pad(x, ((0, 0), (0, pad), *((0, 0),) * (x.ndim - 2)))
            .reshape(groups, -1, size, *x.shape[2:])
            .swapaxes(0, 1)
            for x in (hidden, targets)
        )
        losses = jax.lax.map(chunk_losses, chunks).swapaxes(0, 1).reshape(groups, -1)[:, :tokens]
    return jnp.where(mask, losses, 0.0)
