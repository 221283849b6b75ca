"""LoRA (arXiv 2106.09685): frozen projections, each beside a trained product of two thin matrices."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Int32, UInt32

from s2l_jax.config import PROJECTIONS


@dataclasses.dataclass(frozen=True)
class Lora:
    """The adapters of a model: a kernel W acts as W + alpha / rank x A B (section 4.1)."""

    rank: int
    alpha: float
    projections: tuple[str, ...]  # out of config.PROJECTIONS
    dropout: float = 0.0  # of the adapters' input, in training
    seed: int = 0  # of the dropout

    @property
    def scale(self) -> float:
        """What the product A B is multiplied by."""
        return self.alpha / self.rank


class Adapter(nnx.Module):
    """The two matrices beside one projection; it adds nothing until `b` is trained away from 0."""

    def __init__(
        self,
        lora: Lora,
        projection: str,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        rngs: nnx.Rngs,
    ):
        bound = math.prod(inputs) ** -0.5  # Kaiming's with a = sqrt(5), as PEFT has it
        a = jax.random.uniform(rngs.params(), (*inputs, lora.rank), minval=-bound, maxval=bound)
        self.a, self.b = nnx.Param(a), nnx.Param(jnp.zeros((lora.rank, *outputs)))
        self.settings, self.number = lora, PROJECTIONS.index(projection)

    def __call__(self, x: Float[Array, "..."], noise: UInt32[Array, "b q"] | None) -> Float[Array, "..."]:
        if noise is not None:
            x = _drop(x, _mix(noise ^ np.uint32(self.number)), self.settings.dropout)
        a = self.a[...]
        thin = jnp.tensordot(x, a, axes=a.ndim - 1)
        return jnp.tensordot(thin, self.b[...], axes=1) * self.settings.scale


def available(gated_mlp: bool) -> tuple[str, ...]:
    """The projections that a model has."""
    return tuple(name for name in PROJECTIONS if name != "gate" or gated_mlp)


def merge(params: dict, adapters: dict, lora: Lora) -> dict:
    """The plain model that a base and adapters (stacked layers) equal: each product added to its kernel.

    Kernels of `params` that have an adapter are consumed.
    """
    if "lora" not in adapters:
        return params | {name: merge(params[name], part, lora) for name, part in adapters.items()}
    kernel, sharding = params["kernel"], params["kernel"].sharding
    added = jax.jit(_add_product, static_argnums=3, donate_argnums=0, out_shardings=sharding)
    return params | {"kernel": added(kernel, adapters["lora"]["a"], adapters["lora"]["b"], lora.scale)}


def dropout_noise(
    lora: Lora | None,
    num_layers: int,
    step: Int32[Array, ""],
    examples: Int32[Array, "g r l"] | None,
    positions: Int32[Array, "g r l"],
) -> UInt32[Array, "n g r l"] | None:
    """A word for each layer and token that dropout masks follow from; None where there is no dropout.

    It is a hash of (seed, step, pool row, position in the example, layer), so that packing,
    accumulation and mesh leave the masks as they are.
    """
    if lora is None or not lora.dropout:
        return None
    assert examples is not None, "these rows were packed without naming their examples"
    word = jnp.uint32(lora.seed % 2**32)
    for part in (step, examples, positions):
        word = _mix(word) ^ part.astype(jnp.uint32)
    layers = jnp.arange(num_layers, dtype=jnp.uint32).reshape(-1, 1, 1, 1)
    return _mix(_mix(word) ^ layers)


def _add_product(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST)

    return (kernel + scale * jax.vmap(product)(a, b)).astype(kernel.dtype)


def _drop(x: Float[Array, "..."], words: UInt32[Array, "b q"], rate: float) -> Float[Array, "..."]:
    """Dropout of the axes after those of `words`, a word for each vector."""
    shape = x.shape[words.ndim :]
    channels = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    bits = _mix(jnp.expand_dims(words, range(words.ndim, x.ndim)) + channels * np.uint32(0x9E3779B9))
    return jnp.where(bits >= np.uint32(rate * 2**32), x / (1.0 - rate), jnp.zeros((), x.dtype))


def _mix(word: Int[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32-bit words in which every input bit changes each output bit half of the time."""
    word = (word ^ (word >> 16)) * np.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * np.uint32(0x846CA68B)
    return word ^ (word >> 16)
