"""The compiled programs of generation: taking prompts in, decoding, and moving the cache."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int32

from s2l_jax.evaluation.generation.sampling import Sampling, next_tokens
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.cache import KeyValueCache
from s2l_jax.models.parameters import Params, bind, unstacked
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.mesh import ROW_AXES, row_groups
from s2l_jax.parallel.sharding import replicated, row_constraint, row_sharding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """A batch of answers under way; `tokens` are chosen but not yet in the cache."""

    cache: KeyValueCache
    indices: Int32[Array, "b"]  # of the prompts
    tokens: Int32[Array, "b"]
    positions: Int32[Array, "b"]  # of `tokens`
    counts: Int32[Array, "b"]  # answer tokens so far
    going: Bool[Array, "b"]
    answers: Int32[Array, "b n"]


_Carry = tuple[Int32[Array, ""], DecodeState]  # steps done, and what they led to


class DecodingPrograms:
    """What one model and one way to draw take, compiled: each method, shapes as they come.

    An answer ends before an end token, after `max_new_tokens`, or where the model's context does; `dtype` is
    that of matrix products and of the cache; `attention` is as of `parallel.attention.attention_on`.
    """

    def __init__(
        self,
        config: DecoderConfig,
        max_new_tokens: int,
        end_tokens: tuple[int, ...],
        sampling: Sampling,
        dtype: Any,
        mesh: Mesh,
        attention: str = "auto",
    ) -> None:
        self.max_new_tokens, self.mesh, self.groups = max_new_tokens, mesh, row_groups(mesh)
        self._config, self._end_tokens, self._sampling, self._dtype = config, end_tokens, sampling, dtype
        self._attend, self._constrain = attention_on(mesh, config, dtype, attention), row_constraint(mesh)
        state = state_shardings(mesh, config)
        for method, options in (
            (self.prepare, {}),
            (self.empty, {"static_argnums": (0, 1), "out_shardings": state}),
            (self.prefill, {"out_shardings": state}),
            (self.insert, {"donate_argnums": 0, "out_shardings": state}),
            (self.decode, {"donate_argnums": 1, "out_shardings": state}),
            (self.keep, {"donate_argnums": 0, "out_shardings": state}),
            (self.gather, {"out_shardings": replicated(mesh)}),
        ):
            setattr(self, method.__name__, jax.jit(method, **options))
        self._move_positions = jax.jit(
            _shifted_positions, static_argnums=1, out_shardings=state.cache.positions
        )
        self._move_layer = jax.jit(
            lambda held, slots, shift: tuple(_shifted(each, slots, shift) for each in held),
            static_argnums=1,
            out_shardings=state.cache.keys[:1] * 2,
        )

    def prepare(self, params: Params) -> Params:
        """The model's parameters as the others want them: in `dtype`, layer by layer."""
        return unstacked(self._config, jax.tree.map(lambda p: p.astype(self._dtype), params))

    def empty(self, batch: int, slots: int) -> DecodeState:
        """A state of `batch` rows without a prompt, and room for `slots` tokens of each."""
        zeros = jnp.zeros(batch, jnp.int32)
        cache = KeyValueCache.empty(self._config, batch, slots, self._dtype)
        answers = jnp.zeros((batch, self.max_new_tokens), jnp.int32)
        return DecodeState(cache, zeros, zeros, zeros, zeros, zeros > 0, answers)

    def prefill(
        self,
        params: Params,
        tokens: Int32[Array, "p w"],
        lengths: Int32[Array, "p"],
        indices: Int32[Array, "p"],
    ) -> DecodeState:
        """Rows that have read their prompts, right-aligned, and chosen first tokens; length 0: no prompt."""
        model = bind(self._config, params)
        batch, width = tokens.shape
        positions = jnp.arange(width) - (width - lengths[:, None])
        segments = (positions >= 0).astype(jnp.int32)
        hidden, kept = model.prefill(
            tokens, jnp.maximum(positions, 0), segments, constrain=self._constrain, attend=self._attend
        )
        keys, values = (tuple(each[i].astype(self._dtype) for each in kept) for i in range(2))
        zeros = jnp.zeros(batch, jnp.int32)
        fresh = DecodeState(
            cache=KeyValueCache(keys, values, positions, jnp.int32(width)),
            indices=indices,
            tokens=zeros,
            positions=lengths - 1,
            counts=zeros,
            going=lengths > 0,
            answers=jnp.zeros((batch, self.max_new_tokens), jnp.int32),
        )
        return self._with_next_tokens(fresh, model.padded_logits(hidden[:, -1]))

    def insert(self, state: DecodeState, fresh: DecodeState, rows: Int32[Array, "g r"]) -> DecodeState:
        """Rows that `prefill` gave, in groups, instead of `rows` of each row group; past its end: none."""

        def put(whole: jax.Array, new: jax.Array) -> jax.Array:
            # Row groups apart, so that nothing crosses devices.
            grouped, added = (x.reshape(self.groups, -1, *x.shape[1:]) for x in (whole, new))
            out = jax.vmap(lambda w, p, n: w.at[p].set(n, mode="drop"))(grouped, rows, added)
            return out.reshape(whole.shape)

        slots = state.cache.positions.shape[1]
        shift = state.cache.end - fresh.cache.end
        cache = KeyValueCache(
            tuple(_shifted(keys, slots, shift) for keys in fresh.cache.keys),
            tuple(_shifted(values, slots, shift) for values in fresh.cache.values),
            _shifted_positions(fresh.cache.positions, slots, shift),
            state.cache.end,
        )
        moved = dataclasses.replace(fresh, cache=cache)
        return jax.tree.map(lambda w, n: put(w, n) if w.ndim else w, state, moved)

    def decode(
        self, params: Params, state: DecodeState, stop_at: Int32[Array, ""], num_steps: Int32[Array, ""]
    ) -> DecodeState:
        """Steps until `stop_at` rows are not going, the cache is full, or `num_steps` are done."""
        model = bind(self._config, params)

        def goes_on(carry: _Carry) -> Bool[Array, ""]:
            step, state = carry
            room = state.cache.end < state.cache.positions.shape[1]
            return (step < num_steps) & room & ((~state.going).sum() < stop_at)

        def one_more(carry: _Carry) -> _Carry:
            step, state = carry
            positions = jnp.where(state.going, state.positions, -1)
            hidden, cache = model.extend(state.tokens, positions, state.cache)
            state = dataclasses.replace(state, cache=cache)
            return step + 1, self._with_next_tokens(state, model.padded_logits(hidden))

        return jax.lax.while_loop(goes_on, one_more, (jnp.int32(0), state))[1]

    def keep(self, state: DecodeState, going: Bool[Array, "b"]) -> DecodeState:
        """Only rows with True go on."""
        return dataclasses.replace(state, going=state.going & going)

    def gather(self, state: DecodeState) -> tuple[jax.Array, ...]:
        """`going`, `counts`, `positions` and `answers`, whole on every device."""
        return state.going, state.counts, state.positions, state.answers

    def move(self, state: DecodeState, slots: int, shift: Int32[Array, ""]) -> DecodeState:
        """The cache with `slots` slots, its contents `shift` slots further on; compiled layer by layer."""
        old = state.cache
        layers = []
        for held in zip(old.keys, old.values, strict=True):  # so that no second cache is held
            layers.append(self._move_layer(held, slots, shift))
            for each in held:
                each.delete()
        keys, values = zip(*layers, strict=True)
        positions, end = self._move_positions(old.positions, slots, shift), old.end + shift
        return dataclasses.replace(state, cache=KeyValueCache(keys, values, positions, end))

    def _with_next_tokens(self, state: DecodeState, logits: Float[Array, "b v"]) -> DecodeState:
        """The rows with their next tokens, those that had none left excepted."""
        tokens = next_tokens(logits, state.indices, state.counts, self._sampling)
        ends = jnp.isin(tokens, jnp.array(self._end_tokens, jnp.int32))
        added = state.going & ~ends
        row = jnp.arange(tokens.shape[0])
        place = jnp.where(added, state.counts, state.answers.shape[1])
        counts = state.counts + added
        positions = state.positions + state.going
        going = added & (counts < self.max_new_tokens) & (positions < self._config.max_positions)
        answers = state.answers.at[row, place].set(tokens, mode="drop")
        return dataclasses.replace(
            state, tokens=tokens, positions=positions, counts=counts, going=going, answers=answers
        )


# Several calls of `generate` share what is compiled.
decoding_programs = functools.lru_cache(maxsize=8)(DecodingPrograms)


def _shifted(held: Float[Array, "b h s d"], slots: int, shift: Int32[Array, ""]) -> Float[Array, "b h t d"]:
    """`slots` slots with the contents of others, `shift` slots further on; the rest holds anything."""
    source = jnp.clip(jnp.arange(slots) - shift, 0, held.shape[2] - 1)
    return jnp.take(held, source, axis=2)


def _shifted_positions(
    positions: Int32[Array, "b s"], slots: int, shift: Int32[Array, ""]
) -> Int32[Array, "b t"]:
    """The same for what slots hold; -1 for the rest."""
    source = jnp.arange(slots) - shift
    inside = (source >= 0) & (source < positions.shape[1])
    return jnp.where(inside, jnp.take(positions, source, axis=1, mode="clip"), -1)


def state_shardings(mesh: Mesh, config: DecoderConfig) -> Any:
    """Where a `DecodeState` lies."""
    row: Any = row_sharding(mesh)
    heads = "tensor" if config.num_kv_heads % mesh.shape["tensor"] == 0 else None
    held: Any = NamedSharding(mesh, P(ROW_AXES, heads))
    whole: Any = replicated(mesh)
    layers = (held,) * config.num_layers
    return DecodeState(KeyValueCache(layers, layers, row, whole), row, row, row, row, row, row)
