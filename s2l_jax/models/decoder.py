"""The decoder: one NNX module whose settings cover every supported family."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, UInt32

from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import Attend, Prefix, attend
from s2l_jax.models.cache import KeyValueCache
from s2l_jax.models.layers import Block, Head, Linear, Norm

Constrain = Callable[[jax.Array], jax.Array]

# What the backward pass finds in memory and what it computes again, layer by layer.
REMAT_POLICIES: dict[str, Any] = {
    "none": None,  # everything is kept
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # projections kept, the rest again
    "full": jax.checkpoint_policies.nothing_saveable,  # only each layer's input is kept
}


P = ParamSpec("P")
R = TypeVar("R")


def _in_full_precision(
    method: Callable[Concatenate["Decoder", P], R],
) -> Callable[Concatenate["Decoder", P], R]:
    """Matrix products of a float32 model are in float32; GPUs and TPUs would round their inputs."""

    @functools.wraps(method)
    def run(self: "Decoder", *args: P.args, **options: P.kwargs) -> R:
        wide = self.embed.embedding[...].dtype == jnp.float32
        with jax.default_matmul_precision("highest") if wide else contextlib.nullcontext():
            return method(self, *args, **options)

    return run


class Decoder(nnx.Module):
    """A causal language model.

    Its layers are stacked on a leading axis and run by one scan, or, for generation, apart: a loop
    over a stack copies each layer's weights and cache out of it at every token.
    """

    layers: Any  # a Block whose parameters are stacked, or a list of Blocks

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, *, stacked: bool = True):
        normal = nnx.initializers.normal(config.initializer_range)
        embed = functools.partial(nnx.Embed, features=config.hidden_size, embedding_init=normal, rngs=rngs)
        self.config = config
        self.embed = embed(config.padded_vocab_size)
        self.embed_positions = None if config.rotary_dim else embed(config.max_positions)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs)

        blocks = range(config.num_layers)
        self.layers = stack(rngs) if stacked else nnx.List([Block(config, rngs) for _ in blocks])
        self.final_norm = Norm(config, config.hidden_size)
        self.lm_head = (
            None
            if config.tied_embeddings
            else Linear(
                (config.hidden_size,),
                (config.padded_vocab_size,),
                bias=config.head_bias,
                spread=config.initializer_range,
                rngs=rngs,
            )
        )

    @_in_full_precision
    def __call__(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        segments: Int[Array, "b l"],
        *,
        remat: str = "none",
        constrain: Constrain = lambda x: x,
        attend: Attend = attend,
        noise: UInt32[Array, "n b l"] | None = None,
        prefix: Prefix | None = None,
    ) -> Float[Array, "b l e"]:
        """Final hidden states of packed rows, in the parameters' dtype.

        Args:
          positions: position of each token within its own example.
          segments: example number within the row; 0 marks padding.
          remat: a name in REMAT_POLICIES.
          constrain: applied to the residual stream between layers (a sharding constraint).
          attend: how attention is computed (`parallel.attention.attention_on`).
          noise: what the dropout of adapters follows from (`lora.dropout_noise`); None: no dropout.
          prefix: of `read_prefix`, keys and values by layer of tokens before every segment, which
            `positions` count.
        """
        windows = self._windows(tokens.shape[1])
        alike = len(set(windows)) == 1  # a kernel needs to know the window when it is compiled
        by_layer = None if alike else jnp.array([window or 0 for window in windows], jnp.int32)

        def layer(x: jax.Array, scanned: tuple) -> tuple[jax.Array, None]:
            block, window, noise, prefix = scanned
            core = functools.partial(attend, segments=segments, window=windows[0] if alike else window)
            if prefix is not None:
                core = functools.partial(core, prefix=prefix)
            return constrain(block(x, positions, core, noise)), None

        policy = REMAT_POLICIES[remat]
        body = layer if policy is None else jax.checkpoint(layer, policy=policy)
        # The lookup is in float32 for its gradient: a frequent token's many summands must not be
        # added in bfloat16.
        x = constrain(self._looked_up(tokens, positions, jnp.float32))
        return self.final_norm(jax.lax.scan(body, x, (self.layers, by_layer, noise, prefix))[0])

    @_in_full_precision
    def read_prefix(self, tokens: Int[Array, "p"]) -> tuple[Float[Array, "n p k d"], Float[Array, "n p k d"]]:
        """Keys and values, by layer, of tokens that texts begin with; for `__call__`.

        No sliding window may be shorter than the texts.
        """
        positions, segments = jnp.arange(len(tokens))[None], jnp.ones((1, len(tokens)), jnp.int32)

        def layer(x: jax.Array, block: Block) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            kept = []

            def core(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
                kept.append((key[0], value[0]))
                return attend(query, key, value, segments=segments, window=None)

            return block(x, positions, core), kept[0]

        x = self._looked_up(tokens[None], positions, jnp.float32)
        return jax.lax.scan(layer, x, self.layers)[1]

    @_in_full_precision
    def prefill(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        segments: Int[Array, "b l"],
        *,
        constrain: Constrain = lambda x: x,
        attend: Attend = attend,
    ) -> tuple[Float[Array, "b l e"], list[tuple[Float[Array, "b h l d"], Float[Array, "b h l d"]]]]:
        """As `__call__`, and each layer's keys and values beside; needs unstacked layers."""
        x, kept = constrain(self._looked_up(tokens, positions)), []

        def core(window: int | None, query: Array, key: Array, value: Array) -> Array:
            kept.append((key.swapaxes(1, 2), value.swapaxes(1, 2)))
            return attend(query, key, value, segments=segments, window=window)

        for block, window in zip(self.layers, self._windows(tokens.shape[1]), strict=True):
            x = constrain(block(x, positions, functools.partial(core, window)))
        return self.final_norm(x), kept

    @_in_full_precision
    def extend(
        self, tokens: Int[Array, "b"], positions: Int[Array, "b"], cache: KeyValueCache
    ) -> tuple[Float[Array, "b e"], KeyValueCache]:
        """Final hidden states of one new token a row, and the cache with it; needs unstacked layers.

        `positions` are those within the row's text; -1 for a row without a token.
        """
        cache = cache.place(positions)
        x = self._looked_up(tokens[:, None], positions[:, None])

        def core(number: int, window: int | None, query: Array, key: Array, value: Array) -> Array:
            nonlocal cache
            cache = cache.write(number, key, value)
            return cache.attend(number, query, positions, window)

        windows = self._windows(cache.positions.shape[1])
        for number, (block, window) in enumerate(zip(self.layers, windows, strict=True)):
            x = block(x, positions[:, None], functools.partial(core, number, window))
        return self.final_norm(x[:, 0]), cache.advance()

    def logits(self, hidden: Float[Array, "*b e"]) -> Float[Array, "*b v"]:
        """Next-token logits in float32, whatever the parameters' dtype."""
        return self.padded_logits(hidden)[..., : self.config.vocab_size]

    def padded_logits(self, hidden: Float[Array, "*b e"]) -> Float[Array, "*b p"]:
        """`logits` with the vocabulary's padding, which has no probability: its logits are -inf."""
        return self.head()(hidden)

    def head(self) -> Head:
        """What turns final hidden states into logits."""
        if self.lm_head is None:
            return Head(self.embed.embedding[...].T, None, self.config.vocab_size)
        bias = None if self.lm_head.bias is None else self.lm_head.bias[...]
        return Head(self.lm_head.kernel[...], bias, self.config.vocab_size)

    def _looked_up(
        self, tokens: Int[Array, "b q"], positions: Int[Array, "b q"], dtype: Any = None
    ) -> Float[Array, "b q e"]:
        """Embeddings in the parameters' dtype, looked up (and given a gradient) in `dtype`."""
        table = self.embed.embedding[...]
        dtype = dtype or table.dtype
        x = jnp.take(table.astype(dtype), tokens, axis=0)
        if self.embed_positions is not None:
            learned = self.embed_positions.embedding[...].astype(dtype)
            x += jnp.take(learned, positions, axis=0, mode="clip")
        x = x.astype(table.dtype)
        multiplier = self.config.embedding_multiplier
        # Rounded first, as the reference does: in bfloat16 that is another number.
        return x if multiplier == 1.0 else x * jnp.asarray(multiplier, x.dtype)

    def _windows(self, length: int) -> list[int | None]:
        """Of each layer: tokens a query sees, None for all of a row of `length`."""
        windows = self.config.windows or (0,) * self.config.num_layers
        return [window if 0 < window < length else None for window in windows]


def pick(wanted: Int[Array, "g m"], x: Float[Array, "b l ..."]) -> Float[Array, "g m ..."]:
    """The vectors of some tokens of each of g groups of rows."""
    grouped = x.reshape(len(wanted), -1, *x.shape[2:])
    # Gathers whole vectors; take_along_axis would gather, and scatter back, element by element.
    return jax.vmap(lambda vectors, index: vectors[index])(grouped, wanted)
