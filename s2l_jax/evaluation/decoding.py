"""The compiled programs of generation: taking prompts in, decoding, and moving the cache."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int32

from s2l_jax.evaluation.sampling import Sampling, next_tokens
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.cache import KeyValueCache
from s2l_jax.models.parameters import Params, bind, unstacked
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import replicated, rows


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
        hidden, kept = model.prefill(tokens, jnp.maximum(positions, 0), segments)
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
        cache = _shifted(fresh.cache, slots, rows.cache.end - fresh.cache.end)
        moved = dataclasses.replace(fresh, cache=dataclasses.replace(cache, end=rows.cache.end))
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
        return dataclasses.replace(rows, cache=_shifted(rows.cache, slots, shift))

    def keep(rows: Rows, going: Bool[Array, "b"]) -> Rows:
        return dataclasses.replace(rows, going=rows.going & going)

    def gather(rows: Rows) -> tuple[jax.Array, ...]:
        return rows.going, rows.counts, rows.positions, rows.answers

    shardings = _shardings(mesh)
    return Programs(
        prepare=jax.jit(prepare),
        empty=jax.jit(empty, static_argnums=(0, 1), out_shardings=shardings),
        prefill=jax.jit(prefill, out_shardings=shardings),
        insert=jax.jit(insert, donate_argnums=0, out_shardings=shardings),
        decode=jax.jit(decode, donate_argnums=1, out_shardings=shardings),
        move=jax.jit(move, static_argnums=1, out_shardings=shardings),
        keep=jax.jit(keep, donate_argnums=0, out_shardings=shardings),
        gather=jax.jit(gather, out_shardings=replicated(mesh)),
    )


def _shifted(cache: KeyValueCache, slots: int, shift: Int32[Array, ""]) -> KeyValueCache:
    """A cache of `slots` slots with the contents of another, `shift` slots further on."""
    before = cache.positions.shape[1]
    source = jnp.arange(slots) - shift
    inside = (source >= 0) & (source < before)
    source = jnp.clip(source, 0, before - 1)
    return KeyValueCache(
        tuple(jnp.take(keys, source, axis=2) for keys in cache.keys),
        tuple(jnp.take(values, source, axis=2) for values in cache.values),
        jnp.where(inside, jnp.take(cache.positions, source, axis=1), -1),
        cache.end + shift,
    )


def _shardings(mesh: Mesh) -> Any:
    row: Any = rows(mesh)
    whole: Any = replicated(mesh)
    return Rows(KeyValueCache(row, row, row, whole), row, row, row, row, row, row)
