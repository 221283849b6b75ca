"""Choosing the next token: the likeliest, or one at random from what temperature and cut-offs leave."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from s2l_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
      temperature: logits are divided by it; 0 takes the likeliest token and makes the rest moot.
      top_k: only the k likeliest tokens; 0: all.
      top_p: only the likeliest tokens that together reach this probability (arXiv 1904.09751);
        counted after `top_k`. 1: all.
      seed: of the draws; a prompt's answer depends on it and the prompt's index alone.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature={self.temperature}: must be 0 (greedy) or above.")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k}: must be 0 (all tokens) or above.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: must be above 0 and at most 1.")


GREEDY = Sampling()


def next_tokens(
    logits: Float32[Array, "b v"],
    indices: Int32[Array, "b"],
    counts: Int32[Array, "b"],
    sampling: Sampling,
) -> Int32[Array, "b"]:
    """The next token of each row; the lowest of equally likely ones when greedy.

    Args:
      logits: of the next token.
      indices: of each row's prompt; with `counts` it says which random numbers a row gets.
      counts: tokens each answer has so far.
      sampling: how to draw.
    """
    if sampling.temperature == 0:
        # On a CPU argmax is a scalar loop, while max and min are not.
        token = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
        best = logits >= logits.max(axis=-1, keepdims=True)
        return jnp.where(best, token, logits.shape[-1] - 1).min(axis=-1)
    logits = restricted(logits / sampling.temperature, sampling)
    key = jax.random.key(sampling.seed)

    def draw(index: jax.Array, count: jax.Array, row: jax.Array) -> jax.Array:
        return jax.random.categorical(jax.random.fold_in(jax.random.fold_in(key, index), count), row)

    return jax.vmap(draw)(indices, counts, logits).astype(jnp.int32)


def restricted(logits: Float32[Array, "b v"], sampling: Sampling) -> Float32[Array, "b v"]:
    """`logits` with -inf for tokens that `top_k` and `top_p` leave out; the likeliest always stays."""
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, sampling.top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if sampling.top_p < 1:
        falling = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(falling, axis=-1)
        # A token stays while those likelier than it have not reached top_p.
        stays = probabilities.cumsum(axis=-1) - probabilities < sampling.top_p
        least = jnp.where(stays, falling, jnp.inf).min(axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits
