"""Cross-entropy over the vocabulary; logits and their gradient exist for a chunk of positions at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from s2l_jax.models.layers import Head

_LOGITS_AT_ONCE = 2**25  # elements of one chunk of logits, per row group


def token_losses(
    head: Head, hidden: Float[Array, "g m e"], targets: Int32[Array, "g m"]
) -> Float32[Array, "g m"]:
    """The cross-entropy of each target."""

    def chunk(_: None, hidden: jax.Array, targets: jax.Array) -> tuple[None, jax.Array]:
        return None, _losses(head, hidden, targets)

    return _over_chunks(head, chunk, None, hidden, targets)[1]


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
