"""Rotary positions and attention in plain XLA."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from s2l_jax.models.architecture import DecoderConfig

# Tokens a query sees, itself included; None: all. An array where layers that one scan runs differ, 0: all.
Window = int | Int[Array, ""] | None
Attend = Callable[..., jax.Array]  # with the arguments of `attend`
_BLOCK = 128  # queries
_MOST_BLOCKS = 8  # of a row, each a part of the program
# Keys and values of tokens that come before all segments of all rows.
Prefix = tuple[Float[Array, "p n d"], Float[Array, "p n d"]]


def rotate(
    x: Float[Array, "b q h d"], positions: Int[Array, "b q"], config: DecoderConfig
) -> Float[Array, "b q h d"]:
    """Rotary position embedding on the first `rotary_dim` dimensions of each head (arXiv 2104.09864).

    Halves are paired as GPT-NeoX and Llama pair them: dimension i with i + rotary_dim / 2.
    """
    rotated, kept = x[..., : config.rotary_dim], x[..., config.rotary_dim :]
    angles = positions[..., None].astype(jnp.float32) * rotary_frequencies(config)
    cos, sin = jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]
    first, second = jnp.split(rotated.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), kept], axis=-1)


def rotary_frequencies(config: DecoderConfig) -> Float32[np.ndarray, "f"]:
    """Radians per position of each pair of rotated dimensions, scaled as `rope_scaling` says."""
    exponents = np.arange(0, config.rotary_dim, 2, dtype=np.float32) / config.rotary_dim
    frequencies = 1.0 / np.float32(config.rope_theta) ** exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    slow = frequencies / scaling.factor
    if scaling.kind == "linear":
        return slow.astype(np.float32)
    turns = scaling.original_positions * frequencies / (2 * math.pi)  # over the original context
    share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    share = np.clip(share, 0.0, 1.0)
    return ((1.0 - share) * slow + share * frequencies).astype(np.float32)


def shares_prefix(config: DecoderConfig, max_length: int) -> bool:
    """Whether every token of an example sees all that is before it, so that a prefix can be run apart."""
    return all(window == 0 or window >= max_length for window in config.windows)


def visible_keys(
    segments: Int[Array, "b l"], window: Window, queries: slice = slice(None), keys: slice = slice(None)
) -> Bool[Array, "b q k"]:
    """Which of `keys` each of `queries` sees: earlier tokens of its segment, those within the window."""
    places = jnp.arange(segments.shape[1])
    distance = places[queries, None] - places[None, keys]
    near = distance >= 0
    if window is not None:
        near &= (distance < window) | (window == 0)
    return near[None] & (segments[:, queries, None] == segments[:, None, keys])


def attend(
    query: Float[Array, "b l h d"],
    key: Float[Array, "b l n d"],
    value: Float[Array, "b l n d"],
    *,
    segments: Int[Array, "b l"],
    window: Window,
    prefix: Prefix | None = None,
) -> Float[Array, "b l h d"]:
    """Causal attention within the segments of packed rows; query head i reads head i // (h / n).

    Every token sees itself, padding too, so no softmax is empty. All see the prefix, whole: there
    is no window then.

    Long rows are worked on in blocks of queries, each with the keys that causality and a window known
    to the compiler leave it; a gradient computes a block's scores again rather than keep them.
    """
    length, key, value = query.shape[1], key.swapaxes(1, 2), value.swapaxes(1, 2)
    size = max(_BLOCK, -(-length // (_MOST_BLOCKS * _BLOCK)) * _BLOCK)
    core = softmax_attention if length <= size else jax.checkpoint(softmax_attention)
    blocks = []
    for start in range(0, length, size):
        queries = slice(start, min(start + size, length))
        keys = slice(max(0, start - window + 1) if isinstance(window, int) else 0, queries.stop)
        visible = visible_keys(segments, window, queries, keys)
        blocks.append(core(query[:, queries], key[:, :, keys], value[:, :, keys], visible, prefix))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def softmax_attention(
    query: Float[Array, "b q h d"],
    key: Float[Array, "b n k d"],
    value: Float[Array, "b n k d"],
    visible: Bool[Array, "b q k"],
    prefix: Prefix | None = None,
) -> Float[Array, "b q h d"]:
    """Softmax attention over the prefix and the visible keys in plain XLA, scores and softmax in float32."""
    batch, length, heads, dim = query.shape
    if prefix is not None:
        key, value = (_after(first, rest) for first, rest in zip(prefix, (key, value), strict=True))
        visible = jnp.pad(visible, ((0, 0), (0, 0), (len(prefix[0]), 0)), constant_values=True)
    shared, groups = key.shape[1], heads // key.shape[1]
    # Heads before queries, those of a group after each other: XLA's CPU products are slow in any other order.
    grouped = query.reshape(batch, length, shared, groups, dim).transpose(0, 2, 3, 1, 4)
    grouped = grouped.reshape(batch, shared, groups * length, dim)
    # Finite: a query that sees nothing, as rows of a cache without a token, must not become NaN.
    bias = jnp.where(jnp.tile(visible, (1, groups, 1)), 0.0, 0.5 * jnp.finfo(jnp.float32).min)
    scores = jnp.einsum("bnqd,bnkd->bnqk", grouped, key, preferred_element_type=jnp.float32)
    scores = scores * dim**-0.5 + bias[:, None]
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    # In float32 the fewer numbers are divided; in bfloat16 they would be rounded before and after.
    if value.dtype == jnp.float32:
        mixed = jnp.einsum("bnqk,bnkd->bnqd", weights, value) / total
    else:
        mixed = jnp.einsum("bnqk,bnkd->bnqd", (weights / total).astype(value.dtype), value)
    return mixed.reshape(batch, shared, groups, length, dim).transpose(0, 3, 1, 2, 4).reshape(query.shape)


def _after(prefix: Float[Array, "p n d"], rest: Float[Array, "b n k d"]) -> Float[Array, "b n p+k d"]:
    """Keys or values of the prefix before those of every row."""
    shape = (len(rest), prefix.shape[1], len(prefix), prefix.shape[2])
    return jnp.concatenate([jnp.broadcast_to(prefix.swapaxes(0, 1), shape), rest], axis=2)


def with_prefix(
    attended: Float[Array, "b q h d"],
    normaliser: Float32[Array, "b q h"],
    query: Float[Array, "b q h d"],
    prefix: Prefix,
) -> Float[Array, "b q h d"]:
    """Attention over a prefix added to attention over the rest, in float32, by their log-sum-exps.

    `attended` is what a kernel gave for the keys after the prefix, `normaliser` the log of the sum of
    their exponentiated scores.
    """
    keys = prefix[0]
    batch, length, heads, dim = query.shape
    grouped = query.reshape(batch, length, keys.shape[1], -1, dim)
    scores = jnp.einsum("bqngd,pnd->bngqp", grouped, keys, preferred_element_type=jnp.float32) * dim**-0.5
    first = jnp.einsum(
        "bngqp,pnd->bqngd", jax.nn.softmax(scores, axis=-1), prefix[1].astype(jnp.float32)
    ).reshape(query.shape)
    own = jnp.moveaxis(jax.nn.logsumexp(scores, axis=-1), 3, 1).reshape(batch, length, heads)
    share = jax.nn.sigmoid(own - normaliser)[..., None]
    return (share * first + (1.0 - share) * attended.astype(jnp.float32)).astype(attended.dtype)
