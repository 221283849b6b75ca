"""What a decoder layer is made of: projections, norms, attention, MLP."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, UInt32

from s2l_jax.models.architecture import ACTIVATIONS, DecoderConfig
from s2l_jax.models.attention import rotate
from s2l_jax.models.lora import Adapter, Lora

# How a layer's queries [b q h d] meet keys and values [b q n d]: within the row, or in a cache.
Core = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# What the adapters' dropout follows from, a word a token (`lora.dropout_noise`); None: no dropout.
Noise = UInt32[Array, "b q"] | None


class Linear(nnx.Module):
    """A matrix from the last axes of its input to new last axes, with or without bias and adapter."""

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        bias: bool,
        spread: float,
        rngs: nnx.Rngs,
        name: str = "",
        lora: Lora | None = None,
    ):
        self.kernel = nnx.Param(nnx.initializers.normal(spread)(rngs.params(), (*inputs, *outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        adapted = lora if lora is not None and name in lora.projections else None
        self.lora = None if adapted is None else Adapter(adapted, name, inputs, outputs, rngs)
        self.num_contracted = len(inputs)

    def __call__(self, x: Float[Array, "..."], noise: Noise = None) -> Float[Array, "..."]:
        y = jnp.tensordot(x, self.kernel[...], axes=self.num_contracted)
        y = y if self.bias is None else y + self.bias[...]
        return y if self.lora is None else y + self.lora(x, noise)


@jax.custom_vjp
def wide_product(x: Float[Array, "*b e"], kernel: Float[Array, "e p"]) -> Float32[Array, "*b p"]:
    """A matrix product in float32 whose gradient is rounded to `x`'s dtype before it is multiplied.

    As in PyTorch, where the float32 copy of bfloat16 logits passes back a bfloat16 gradient. JAX's own
    rule multiplies the float32 gradient, which matrix units do at half their rate or less.
    """
    return jnp.dot(x, kernel, preferred_element_type=jnp.float32, precision=_precision(x))


def _wide_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    product = functools.partial(jnp.tensordot, precision=_precision(x), preferred_element_type=jnp.float32)
    gradient, leading = gradient.astype(x.dtype), tuple(range(x.ndim - 1))
    of_x = product(gradient, kernel, axes=((gradient.ndim - 1,), (1,)))
    of_kernel = product(x, gradient, axes=(leading, leading))
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


def _precision(x: jax.Array) -> jax.lax.Precision | None:
    """Accelerators would round float32 inputs."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


wide_product.defvjp(lambda x, kernel: (wide_product(x, kernel), (x, kernel)), _wide_backward)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """The last matrix: from hidden states to logits in float32, those of the vocabulary's padding -inf."""

    kernel: Float[Array, "e p"]
    bias: Float[Array, "p"] | None
    vocab_size: int = dataclasses.field(metadata={"static": True})

    def __call__(self, hidden: Float[Array, "*b e"]) -> Float32[Array, "*b p"]:
        logits = wide_product(hidden, self.kernel)
        if self.bias is not None:
            logits += self.bias.astype(jnp.float32)
        if logits.shape[-1] == self.vocab_size:
            return logits
        token = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        return jnp.where(token < self.vocab_size, logits, -jnp.inf)


class Norm(nnx.Module):
    """Layer norm (arXiv 1607.06450) or RMS norm (arXiv 1910.07467), computed in float32."""

    def __init__(self, config: DecoderConfig, size: int):
        self.scale = nnx.Param(jnp.full(size, 1.0 - config.norm_offset, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(size)) if config.norm == "layer" else None
        self.eps, self.offset, self.centred = config.norm_eps, config.norm_offset, config.norm == "layer"

    def __call__(self, x: Float[Array, "... e"]) -> Float[Array, "... e"]:
        wide = x.astype(jnp.float32)
        if self.centred:
            wide -= wide.mean(axis=-1, keepdims=True)
        wide *= jax.lax.rsqrt(jnp.square(wide).mean(axis=-1, keepdims=True) + self.eps)
        wide *= self.scale[...].astype(jnp.float32) + self.offset
        if self.bias is not None:
            wide += self.bias[...].astype(jnp.float32)
        return wide.astype(x.dtype)


class Attention(nnx.Module):
    """Causal self-attention; several query heads may share a key and value head (arXiv 2305.13245)."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        linear = functools.partial(Linear, spread=config.initializer_range, rngs=rngs, lora=config.lora)
        embed, shared = (config.hidden_size,), (config.num_kv_heads, config.head_dim)
        heads = (config.num_heads, config.head_dim)
        self.query = linear(embed, heads, name="query", bias=config.qkv_bias)
        self.key = linear(embed, shared, name="key", bias=config.qkv_bias)
        self.value = linear(embed, shared, name="value", bias=config.qkv_bias)
        self.out = linear(heads, embed, name="out", bias=config.out_bias)
        self.query_norm = Norm(config, config.head_dim) if config.query_key_norm else None
        self.key_norm = Norm(config, config.head_dim) if config.query_key_norm else None
        self.config = config

    def __call__(
        self,
        x: Float[Array, "b q e"],
        positions: Int[Array, "b q"],
        core: Core,
        noise: Noise = None,
    ) -> Float[Array, "b q e"]:
        query, key, value = self.query(x, noise), self.key(x, noise), self.value(x, noise)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.config.rotary_dim:
            query, key = (rotate(each, positions, self.config) for each in (query, key))
        return self.out(core(query, key, value), noise)


class MLP(nnx.Module):
    """Two matrices with an activation between, or three where a gate multiplies it."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        linear = functools.partial(
            Linear, bias=config.mlp_bias, spread=config.initializer_range, rngs=rngs, lora=config.lora
        )
        embed, inner = (config.hidden_size,), (config.intermediate_size,)
        self.gate = linear(embed, inner, name="gate") if config.gated_mlp else None
        self.up = linear(embed, inner, name="up")
        self.down = linear(inner, embed, name="down")
        self.activation = ACTIVATIONS[config.activation]

    def __call__(self, x: Float[Array, "b q e"], noise: Noise = None) -> Float[Array, "b q e"]:
        if self.gate is None:
            return self.down(self.activation(self.up(x, noise)), noise)
        return self.down(self.activation(self.gate(x, noise)) * self.up(x, noise), noise)


class Block(nnx.Module):
    """One layer: attention and MLP, each behind a norm, in parallel or one after the other."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.attention_norm = Norm(config, config.hidden_size)
        self.attention = Attention(config, rngs)
        self.mlp_norm = None if config.shared_norm else Norm(config, config.hidden_size)
        self.mlp = MLP(config, rngs)
        self.parallel_residual = config.parallel_residual

    def __call__(
        self,
        x: Float[Array, "b q e"],
        positions: Int[Array, "b q"],
        core: Core,
        noise: Noise = None,
    ) -> Float[Array, "b q e"]:
        """The stream after this layer."""
        normed = self.attention_norm(x)
        attended = self.attention(normed, positions, core, noise)
        if self.parallel_residual:
            return x + attended + self.mlp(normed if self.mlp_norm is None else self.mlp_norm(x), noise)
        x = x + attended
        return x + self.mlp(x if self.mlp_norm is None else self.mlp_norm(x), noise)
