"""The decoder: one NNX module whose settings cover every supported family."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from s2l_jax.models.attention import attend, rotate

Params = dict[str, Any]  # nested dict of arrays, the pure-dict form of the module's state
Constrain = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_fast": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Settings of the decoder; `models.families` derives them from a Hugging Face config.json."""

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int  # longest context the family's position encoding was made for, tokens
    rotary_dim: int  # leading dimensions of each head that are rotated
    rope_theta: float
    norm_eps: float
    activation: str
    parallel_residual: bool  # attention and MLP read the same residual stream
    attention_bias: bool
    tied_embeddings: bool
    initializer_range: float  # standard deviation of freshly initialised matrices


# Logical axes of every parameter; `parallel.sharding` maps them to mesh axes.
LOGICAL_AXES: dict[str, tuple[str | None, ...]] = {
    "embed/embedding": ("vocab", "embed"),
    "layers/attention_norm/scale": ("layers", None),
    "layers/attention_norm/bias": ("layers", None),
    "layers/attention/query/kernel": ("layers", "embed", "heads", None),
    "layers/attention/query/bias": ("layers", "heads", None),
    "layers/attention/key/kernel": ("layers", "embed", "heads", None),
    "layers/attention/key/bias": ("layers", "heads", None),
    "layers/attention/value/kernel": ("layers", "embed", "heads", None),
    "layers/attention/value/bias": ("layers", "heads", None),
    "layers/attention/out/kernel": ("layers", "heads", None, "embed"),
    "layers/attention/out/bias": ("layers", None),
    "layers/mlp_norm/scale": ("layers", None),
    "layers/mlp_norm/bias": ("layers", None),
    "layers/mlp/up/kernel": ("layers", "embed", "mlp"),
    "layers/mlp/up/bias": ("layers", "mlp"),
    "layers/mlp/down/kernel": ("layers", "mlp", "embed"),
    "layers/mlp/down/bias": ("layers", None),
    "final_norm/scale": (None,),
    "final_norm/bias": (None,),
    "lm_head/kernel": ("embed", "vocab"),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """Where each token of a batch of rows stands: what attention and rotary positions need.

    Token q of a row sees token k of that row when their segments agree and k's slot is not after
    q's. Segment 0 is padding.
    """

    positions: Int[Array, "b q"]  # position within the example, from 0
    segments: Int[Array, "b q"]
    slots: Int[Array, "b q"]  # place in the row (or in the key-value cache)
    key_segments: Int[Array, "b k"]
    key_slots: Int[Array, "b k"]

    @classmethod
    def packed(cls, positions: Int[Array, "b l"], segments: Int[Array, "b l"]) -> "Context":
        """Rows that hold whole examples: keys are the row's own tokens."""
        slots = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
        return cls(positions, segments, slots, segments, slots)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of every layer, [layers, batch, slots, heads, head_dim]; `end` slots are filled."""

    keys: Float[Array, "n b s h d"]
    values: Float[Array, "n b s h d"]
    end: Int[Array, ""]

    @classmethod
    def empty(cls, config: DecoderConfig, batch: int, slots: int, dtype: Any) -> "KeyValueCache":
        """A cache with room for `slots` tokens a row."""
        shape = (config.num_layers, batch, slots, config.num_heads, config.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.int32(0))


class Attention(nnx.Module):
    """Multi-head causal self-attention with rotary positions."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        heads = (config.num_heads, config.head_dim)
        linear = functools.partial(
            nnx.LinearGeneral,
            use_bias=config.attention_bias,
            kernel_init=nnx.initializers.normal(config.initializer_range),
            rngs=rngs,
        )
        self.query = linear(config.hidden_size, heads)
        self.key = linear(config.hidden_size, heads)
        self.value = linear(config.hidden_size, heads)
        self.out = linear(heads, config.hidden_size, axis=(-2, -1))
        self.config = config

    def __call__(
        self,
        x: Float[Array, "b q e"],
        context: Context,
        cache: tuple[jax.Array, jax.Array] | None,
        end: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "b q e"], tuple[jax.Array, jax.Array]]:
        rotary = functools.partial(rotate, rotary_dim=self.config.rotary_dim, theta=self.config.rope_theta)
        query = rotary(self.query(x), context.positions)
        key = rotary(self.key(x), context.positions)
        value = self.value(x)
        if cache is not None and end is not None:
            key = jax.lax.dynamic_update_slice_in_dim(cache[0], key, end, axis=1)
            value = jax.lax.dynamic_update_slice_in_dim(cache[1], value, end, axis=1)
        visible = (context.segments[:, :, None] == context.key_segments[:, None, :]) & (
            context.slots[:, :, None] >= context.key_slots[:, None, :]
        )
        return self.out(attend(query, key, value, visible)), (key, value)


class MLP(nnx.Module):
    """Two matrices with an activation between."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        linear = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(config.initializer_range), rngs=rngs
        )
        self.up = linear(config.hidden_size, config.intermediate_size)
        self.down = linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.activation]

    def __call__(self, x: Float[Array, "b q e"]) -> Float[Array, "b q e"]:
        return self.down(self.activation(self.up(x)))


class Block(nnx.Module):
    """One layer: attention and MLP, each behind a norm, in parallel or one after the other."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.attention_norm = _norm(config, rngs)
        self.attention = Attention(config, rngs)
        self.mlp_norm = _norm(config, rngs)
        self.mlp = MLP(config, rngs)
        self.parallel_residual = config.parallel_residual

    def __call__(
        self,
        x: Float[Array, "b q e"],
        context: Context,
        cache: tuple[jax.Array, jax.Array] | None,
        end: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "b q e"], tuple[jax.Array, jax.Array]]:
        attended, cache = self.attention(self.attention_norm(x), context, cache, end)
        if self.parallel_residual:
            return x + attended + self.mlp(self.mlp_norm(x)), cache
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), cache


class Decoder(nnx.Module):
    """A causal language model; layers are stacked on a leading axis and run by one scan."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(config.initializer_range)
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, config.hidden_size, embedding_init=normal, rngs=rngs)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs)

        self.layers = stack(rngs)
        self.final_norm = _norm(config, rngs)
        if not config.tied_embeddings:
            self.lm_head = nnx.Linear(
                config.hidden_size, config.vocab_size, use_bias=False, kernel_init=normal, rngs=rngs
            )

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        segments: Int[Array, "b l"],
        *,
        remat: bool = False,
        constrain: Constrain = lambda x: x,
    ) -> Float[Array, "b l e"]:
        """Final hidden states of packed rows, in the parameters' dtype.

        Args:
          tokens: token ids.
          positions: position of each token within its own example.
          segments: example number within the row; 0 marks padding.
          remat: recompute each layer in the backward pass instead of keeping its activations.
          constrain: applied to the residual stream between layers (a sharding constraint).
        """
        context = Context.packed(positions, segments)

        def layer(x: jax.Array, block: Block) -> tuple[jax.Array, None]:
            return constrain(block(x, context, None, None)[0]), None

        body = jax.checkpoint(layer) if remat else layer
        x, _ = jax.lax.scan(body, constrain(self._embedded(tokens)), self.layers)
        return self.final_norm(x)

    def extend(
        self, tokens: Int[Array, "b q"], context: Context, cache: KeyValueCache
    ) -> tuple[Float[Array, "b q e"], KeyValueCache]:
        """Final hidden states of new tokens that follow what the cache holds, and the longer cache."""

        def layer(
            x: jax.Array, scanned: tuple[Block, jax.Array, jax.Array]
        ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            block, keys, values = scanned
            return block(x, context, (keys, values), cache.end)

        x, (keys, values) = jax.lax.scan(
            layer, self._embedded(tokens), (self.layers, cache.keys, cache.values)
        )
        return self.final_norm(x), KeyValueCache(keys, values, cache.end + tokens.shape[1])

    def logits(self, hidden: Float[Array, "*b e"]) -> Float[Array, "*b v"]:
        """Next-token logits in float32, whatever the parameters' dtype."""
        tied = self.config.tied_embeddings
        kernel = self.embed.embedding[...].T if tied else self.lm_head.kernel[...]
        return jnp.dot(hidden, kernel, preferred_element_type=jnp.float32)

    def _embedded(self, tokens: Int[Array, "b q"]) -> Float[Array, "b q e"]:
        table = self.embed.embedding[...]
        # nnx.Embed would give the dtype it was built with, not the parameters'. The lookup is in
        # float32 for its gradient: a frequent token's many summands must not be added in bfloat16.
        return jnp.take(table.astype(jnp.float32), tokens, axis=0).astype(table.dtype)


def _norm(config: DecoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x^2] - E[x]^2, loses digits that parity with PyTorch needs.
    return nnx.LayerNorm(config.hidden_size, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs)


@functools.lru_cache
def abstract_decoder(config: DecoderConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """The module's structure and the shapes of its parameters, without allocating any."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0))))


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its path, such as `layers/mlp/up/kernel`."""
    _, state = abstract_decoder(config)
    return {path: leaf.shape for path, leaf in flatten_params(nnx.to_pure_dict(state)).items()}


def abstract_params(config: DecoderConfig) -> Params:
    """Shapes and dtypes of the parameters, as a nested dict."""
    shapes = parameter_shapes(config).items()
    return nest_params({p: jax.ShapeDtypeStruct(shape, jnp.float32) for p, shape in shapes})


def flatten_params(params: Params) -> dict[str, Any]:
    """`{"a": {"b": x}}` as `{"a/b": x}`."""
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(str(k.key) for k in path): leaf for path, leaf in flat}


def nest_params(flat: dict[str, Any]) -> Params:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    nested: Params = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return nested


def bind(config: DecoderConfig, params: Params) -> Decoder:
    """A module that holds `params` (a nested dict of arrays, possibly traced)."""
    graphdef, abstract = abstract_decoder(config)
    return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(abstract), jax.tree.leaves(params)))


def init_params(config: DecoderConfig, key: jax.Array) -> Params:
    """Freshly initialised float32 parameters; jit it with out_shardings to initialise in place."""
    return nnx.to_pure_dict(nnx.split(Decoder(config, nnx.Rngs(key)))[1])


def model_params(model: Decoder) -> Params:
    """The parameters a module holds, as a nested dict of arrays."""
    return nnx.to_pure_dict(nnx.split(model)[1])
