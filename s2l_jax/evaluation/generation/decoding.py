"""The compiled programs of generation: taking prompts in, decoding, and moving the cache."""

import dataclasses
import functools
from collections.abc import Callable
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
from s2l_jax.parallel.sharding import replicated, row_constraint, rows


@dataclasses.dataclass(frozen=True)
class Limits:
    """What ends an answer."""

    max_new_tokens: int
    end_tokens: tuple[int, ...]
    max_positions: int  # the model's context, tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """A batch of answers under way; `tokens` are chosen but not yet in the cache."""

    cache: KeyValueCache
    numbers: Int32[Array, "b"]  # of the prompts
    tokens: Int32[Array, "b"]
    positions: Int32[Array, "b"]  # of `tokens`
    counts: Int32[Array, "b"]  # answer tokens so far
    going: Bool[Array, "b"]
    answers: Int32[Array, "b n"]


@dataclasses.dataclass(frozen=True)
class Programs:
    """What `compile_programs` gives; each takes the rows and returns what becomes of them.

    prepare(params): the model's parameters as the others want them: in `dtype`, layer by layer.
    prefill(params, tokens, lengths, numbers): rows that have read prompts [p w], right-aligned, and
      chosen their first tokens; length 0 for no prompt.
    insert(rows, fresh, places): rows that prefill gave, in groups, instead of the rows `places` [g r]
      of each row group; a place past the group's end for none.
    decode(params, rows, stop_at, num_steps): steps until `stop_at` rows are not going, the cache is
      full, or `num_steps` are done.
    move(rows, slots, shift): the cache with `slots` slots, its contents `shift` slots further on.
    keep(rows, going): only rows with True [b] go on.
    gather(rows): `going`, `counts`, `positions` and `answers`, whole on every device.
    """

    prepare: Callable[[Params], Params]
    empty: Callable[[int, int], Rows]
    prefill: Callable[..., Rows]
    insert: Callable[..., Rows]
    decode: Callable[..., Rows]
    move: Callable[..., Rows]
    keep: Callable[..., Rows]
    gather: Callable[..., tuple[jax.Array, ...]]


@functools.lru_cache(maxsize=8)
def compile_programs(
    config: DecoderConfig, limits: Limits, sampling: Sampling, dtype: Any, mesh: Mesh
) -> Programs:
    """The programs for one model and one way to draw; shapes compile as they come."""
    groups = row_groups(mesh)
    attend, constrain = attention_on(mesh, config, dtype), row_constraint(mesh)

    def chosen(rows: Rows, logits: Float[Array, "b v"]) -> Rows:
        """The rows with their next tokens, those that had none left excepted."""
        tokens = next_tokens(logits, rows.numbers, rows.counts, sampling)
        ends = jnp.isin(tokens, jnp.array(limits.end_tokens, jnp.int32))
        added = rows.going & ~ends
        row = jnp.arange(tokens.shape[0])
        place = jnp.where(added, rows.counts, rows.answers.shape[1])
        counts = rows.counts + added
        positions = rows.positions + rows.going
        going = added & (counts < limits.max_new_tokens) & (positions < limits.max_positions)
        answers = rows.answers.at[row, place].set(tokens, mode="drop")
        return dataclasses.replace(
            rows, tokens=tokens, positions=positions, counts=counts, going=going, answers=answers
        )

    def prepare(params: Params) -> Params:
        return unstacked(config, jax.tree.map(lambda p: p.astype(dtype), params))

    def empty(batch: int, slots: int) -> Rows:
        zeros = jnp.zeros(batch, jnp.int32)
        cache = KeyValueCache.empty(config, batch, slots, dtype)
        answers = jnp.zeros((batch, limits.max_new_tokens), jnp.int32)
        return Rows(cache, zeros, zeros, zeros, zeros, zeros > 0, answers)

    def prefill(
        params: Params, tokens: Int32[Array, "p w"], lengths: Int32[Array, "p"], numbers: Int32[Array, "p"]
    ) -> Rows:
        model = bind(config, params)
        batch, width = tokens.shape
        positions = jnp.arange(width) - (width - lengths[:, None])
        segments = (positions >= 0).astype(jnp.int32)
        hidden, kept = model.prefill(
            tokens, jnp.maximum(positions, 0), segments, constrain=constrain, attend=attend
        )
        keys, values = (tuple(each[i].astype(dtype) for each in kept) for i in range(2))
        zeros = jnp.zeros(batch, jnp.int32)
        fresh = Rows(
            cache=KeyValueCache(keys, values, positions, jnp.int32(width)),
            numbers=numbers,
            tokens=zeros,
            positions=lengths - 1,
            counts=zeros,
            going=lengths > 0,
            answers=jnp.zeros((batch, limits.max_new_tokens), jnp.int32),
        )
        return chosen(fresh, model.padded_logits(hidden[:, -1]))

    def insert(rows: Rows, fresh: Rows, places: Int32[Array, "g r"]) -> Rows:
        def put(whole: jax.Array, new: jax.Array) -> jax.Array:
            # Row groups apart, so that nothing crosses devices.
            grouped, added = (x.reshape(groups, -1, *x.shape[1:]) for x in (whole, new))
            out = jax.vmap(lambda w, p, n: w.at[p].set(n, mode="drop"))(grouped, places, added)
            return out.reshape(whole.shape)

        slots = rows.cache.positions.shape[1]
        shift = rows.cache.end - fresh.cache.end
        cache = KeyValueCache(
            tuple(_shifted(keys, slots, shift) for keys in fresh.cache.keys),
            tuple(_shifted(values, slots, shift) for values in fresh.cache.values),
            _shifted_positions(fresh.cache.positions, slots, shift),
            rows.cache.end,
        )
        moved = dataclasses.replace(fresh, cache=cache)
        return jax.tree.map(lambda w, n: put(w, n) if w.ndim else w, rows, moved)

    def decode(params: Params, rows: Rows, stop_at: Int32[Array, ""], num_steps: Int32[Array, ""]) -> Rows:
        model = bind(config, params)

        def goes_on(state: tuple[Int32[Array, ""], Rows]) -> Bool[Array, ""]:
            step, rows = state
            room = rows.cache.end < rows.cache.positions.shape[1]
            return (step < num_steps) & room & ((~rows.going).sum() < stop_at)

        def step(state: tuple[Int32[Array, ""], Rows]) -> tuple[Int32[Array, ""], Rows]:
            number, rows = state
            positions = jnp.where(rows.going, rows.positions, -1)
            hidden, cache = model.extend(rows.tokens, positions, rows.cache)
            return number + 1, chosen(dataclasses.replace(rows, cache=cache), model.padded_logits(hidden))

        return jax.lax.while_loop(goes_on, step, (jnp.int32(0), rows))[1]

    def move(rows: Rows, slots: int, shift: Int32[Array, ""]) -> Rows:
        old = rows.cache
        layers = []
        for held in zip(old.keys, old.values, strict=True):  # so that no second cache is held
            layers.append(move_layer(held, slots, shift))
            for each in held:
                each.delete()
        keys, values = zip(*layers, strict=True)
        positions, end = move_positions(old.positions, slots, shift), old.end + shift
        return dataclasses.replace(rows, cache=KeyValueCache(keys, values, positions, end))

    def keep(rows: Rows, going: Bool[Array, "b"]) -> Rows:
        return dataclasses.replace(rows, going=rows.going & going)

    def gather(rows: Rows) -> tuple[jax.Array, ...]:
        return rows.going, rows.counts, rows.positions, rows.answers

    shardings = _shardings(mesh, config)
    move_positions = jax.jit(_shifted_positions, static_argnums=1, out_shardings=shardings.positions)
    move_layer = jax.jit(
        lambda held, slots, shift: tuple(_shifted(each, slots, shift) for each in held),
        static_argnums=1,
        out_shardings=shardings.cache.keys[:1] * 2,
    )
    return Programs(
        prepare=jax.jit(prepare),
        empty=jax.jit(empty, static_argnums=(0, 1), out_shardings=shardings),
        prefill=jax.jit(prefill, out_shardings=shardings),
        insert=jax.jit(insert, donate_argnums=0, out_shardings=shardings),
        decode=jax.jit(decode, donate_argnums=1, out_shardings=shardings),
        move=move,
        keep=jax.jit(keep, donate_argnums=0, out_shardings=shardings),
        gather=jax.jit(gather, out_shardings=replicated(mesh)),
    )


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


def _shardings(mesh: Mesh, config: DecoderConfig) -> Any:
    row: Any = rows(mesh)
    heads = "tensor" if config.num_kv_heads % mesh.shape["tensor"] == 0 else None
    held: Any = NamedSharding(mesh, P(ROW_AXES, heads))
    whole: Any = replicated(mesh)
    layers = (held,) * config.num_layers
    return Rows(KeyValueCache(layers, layers, row, whole), row, row, row, row, row, row)
