"""Rotary positions and attention: the one place that decides how attention is computed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def rotate(
    x: Float[Array, "b q h d"], positions: Int[Array, "b q"], *, rotary_dim: int, theta: float
) -> Float[Array, "b q h d"]:
    """Rotary position embedding on the first `rotary_dim` dimensions of each head (arXiv 2104.09864).

    Halves are paired as GPT-NeoX and Llama pair them: dimension i with i + rotary_dim / 2.
    """
    rotated, kept = x[..., :rotary_dim], x[..., rotary_dim:]
    frequencies = theta ** (-jnp.arange(0, rotary_dim, 2, dtype=jnp.float32) / rotary_dim)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]
    first, second = jnp.split(rotated.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), kept], axis=-1)


def attend(
    query: Float[Array, "b q h d"],
    key: Float[Array, "b k h d"],
    value: Float[Array, "b k h d"],
    visible: Bool[Array, "b q k"],
) -> Float[Array, "b q h d"]:
    """Softmax attention over the visible keys, scores and softmax in float32.

    A query must see at least one key; padding sees padding, so no row is empty.
    """
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    scores = jnp.where(visible[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
