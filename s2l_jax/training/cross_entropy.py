"""Cross-entropy over the vocabulary: by tiles of it, or by chunks of positions where a gradient is taken."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from s2l_jax.models.layers import Head, wide_product
from s2l_jax.parallel.platform import platform

_LOGITS_AT_ONCE = 2**25  # elements of one chunk or tile of logits, per row group
_CPU_TILE = 1024  # columns, whose logits a CPU's cache holds
# The logit of what is no token: finite, as the difference of two infinities is NaN.
_NEVER = -0.5 * float(np.finfo(np.float32).max)


def token_losses(
    head: Head, hidden: Float[Array, "g m e"], targets: Int32[Array, "g m"], *, vocab_shards: int = 1
) -> Float32[Array, "g m"]:
    """The cross-entropy of each target; the softmax's sum is taken online, tile by tile of the vocabulary.

    A tile's logits are still in a CPU's cache when they are exponentiated; see arXiv 1805.02867,
    algorithm 3. With `vocab_shards` devices that the vocabulary is spread over, each works on its own tiles.
    """
    tiled = functools.partial(_over_tiles, hidden, targets, head.vocab_size)
    if vocab_shards == 1:
        normaliser, picked = tiled(head.kernel, head.bias, 0)
        return normaliser - picked
    size = head.kernel.shape[1] // vocab_shards
    kernels = head.kernel.reshape(-1, vocab_shards, size)
    biases = None if head.bias is None else head.bias.reshape(vocab_shards, size)
    firsts = jnp.arange(vocab_shards) * size
    normaliser, picked = jax.vmap(tiled, in_axes=(1, None if biases is None else 0, 0))(
        kernels, biases, firsts
    )
    return jax.nn.logsumexp(normaliser, axis=0) - picked.sum(axis=0)


def _over_tiles(
    hidden: Float[Array, "g m e"],
    targets: Int32[Array, "g m"],
    vocab_size: int,
    kernel: Float[Array, "e p"],
    bias: Float[Array, "p"] | None,
    first: int | jax.Array,
) -> tuple[Float32[Array, "g m"], Float32[Array, "g m"]]:
    """Of the tokens from `first` on: log of the sum of exponentiated logits, and the target's logit or 0."""
    size = kernel.shape[1]
    width = _tile_width(targets.shape[1], size)

    def take(tile: jax.Array, so_far: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        largest, total, picked = so_far
        start = jnp.minimum(tile * width, size - width)  # the last tile overlaps the one before it
        logits = wide_product(hidden, jax.lax.dynamic_slice_in_dim(kernel, start, width, axis=1))
        if bias is not None:
            logits += jax.lax.dynamic_slice_in_dim(bias, start, width).astype(jnp.float32)
        place = start + jnp.arange(width)
        own = (place >= tile * width) & (first + place < vocab_size)
        logits = jnp.where(own, logits, _NEVER)
        new = jnp.maximum(largest, logits.max(axis=-1))
        total = total * jnp.exp(largest - new) + jnp.exp(logits - new[..., None]).sum(axis=-1)
        is_target = own & (first + place == targets[..., None])
        return new, total, picked + jnp.where(is_target, logits, 0.0).sum(axis=-1)

    zeros = jnp.zeros(targets.shape, jnp.float32)
    largest, total, picked = jax.lax.fori_loop(0, -(-size // width), take, (zeros + _NEVER, zeros, zeros))
    return largest + jnp.log(total), picked


def _tile_width(tokens: int, vocabulary: int) -> int:
    """Columns of a tile: few enough for a CPU's cache, on accelerators for `_LOGITS_AT_ONCE`; even tiles."""
    most = _CPU_TILE if platform() == "cpu" else max(128, _LOGITS_AT_ONCE // tokens)
    tiles = -(-vocabulary // most)
    return min(vocabulary, -(-vocabulary // (tiles * 128)) * 128)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_loss(
    head_is_trained: bool,
    head: Head,
    hidden: Float[Array, "g m e"],
    targets: Int32[Array, "g m"],
    weights: Float32[Array, "g m"],
) -> tuple[Float32[Array, ""], Float32[Array, "g m"]]:
    """The weighted sum of the token losses, and these, which pass no gradient on.

    As the weights are known, a chunk's gradient is taken in the forward pass, while its logits are
    there: three matrix products, or two below a head that is not trained, rather than to compute the
    logits again in the backward pass.
    """
    losses = token_losses(head, hidden, targets)
    return (weights * losses).sum(), losses


def _forward(
    head_is_trained: bool, head: Head, hidden: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[Head | None, jax.Array]]:
    def chunk(so_far: Any, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple[Any, Any]:
        def loss(hidden: jax.Array, head: Head) -> tuple[jax.Array, jax.Array]:
            losses = _losses(head, hidden, targets)
            return (weights * losses).sum(), losses

        if not head_is_trained:
            of_hidden, losses = jax.grad(loss, has_aux=True)(hidden, head)
            return None, (losses, of_hidden)
        (of_hidden, of_head), losses = jax.grad(loss, argnums=(0, 1), has_aux=True)(hidden, head)
        return jax.tree.map(lambda x, y: x + y, so_far, of_head), (losses, of_hidden)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), head) if head_is_trained else None
    of_head, (losses, of_hidden) = _over_chunks(head, chunk, zeros, hidden, targets, weights)
    of_head = jax.tree.map(lambda x, like: x.astype(like.dtype), of_head, head) if head_is_trained else None
    return ((weights * losses).sum(), losses), (of_head, of_hidden)


def _backward(
    head_is_trained: bool, kept: tuple[Head | None, jax.Array], gradients: tuple[jax.Array, jax.Array]
) -> tuple[Any, ...]:
    of_head, of_hidden = jax.tree.map(lambda x: (gradients[0] * x).astype(x.dtype), kept)
    return of_head, of_hidden, None, None


weighted_loss.defvjp(_forward, _backward)


def _losses(head: Head, hidden: jax.Array, targets: jax.Array) -> jax.Array:
    logits = head(hidden)
    # A masked sum fuses with the softmax, forwards and backwards; a gather does not.
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]
    picked = jnp.where(is_target, logits, 0.0).sum(axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - picked


def _over_chunks(head: Head, chunk: Callable, carry: Any, *arrays: jax.Array) -> tuple[Any, Any]:
    """`chunk` of a carry and of parts of arrays [g, m, ...], as few as memory allows, alike in size."""
    groups, tokens = arrays[0].shape[:2]
    most = max(64, _LOGITS_AT_ONCE // head.kernel.shape[1] // 64 * 64)
    count = -(-tokens // most)
    if count == 1:
        return chunk(carry, *arrays)
    size = -(-tokens // (count * 64)) * 64

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, count * size - tokens), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(groups, count, size, *x.shape[2:]).swapaxes(0, 1)

    def join(x: jax.Array) -> jax.Array:
        return x.swapaxes(0, 1).reshape(groups, count * size, *x.shape[3:])[:, :tokens]

    carry, results = jax.lax.scan(lambda carry, parts: chunk(carry, *parts), carry, tuple(map(cut, arrays)))
    return carry, jax.tree.map(join, results)
