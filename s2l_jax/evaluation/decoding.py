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
    take_in(params, rows, tokens, lengths, places, numbers): prompts [g r w], right-aligned, into
      rows `places` [g r] of each row group, a place past the group's end for none.
    decode(params, rows, stop_at, num_steps): steps until `stop_at` rows are not going, the cache is
      full, or `num_steps` are done.
    move(rows, slots, shift): the cache with `slots` slots, its contents `shift` slots further on.
    keep(rows, going): only rows with True [b] go on.
    gather(rows): `going`, `counts`, `positions` and `answers`, whole on every device.
    """

    prepare: Callable[[Params], Params]
    empty: Callable[[int, int], Rows]
    take_in: Callable[..., Rows]
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

    def take_in(
        params: Params,
        rows: Rows,
        tokens: Int32[Array, "g r w"],
        lengths: Int32[Array, "g r"],
        places: Int32[Array, "g r"],
        numbers: Int32[Array, "g r"],
    ) -> Rows:
        model = bind(config, params)
        width = tokens.shape[-1]
        positions = jnp.arange(width) - (width - lengths[..., None])
        flat = tokens.reshape(-1, width), positions.reshape(-1, width)
        segments = (flat[1] >= 0).astype(jnp.int32)
        hidden, kept = model.prefill(flat[0], jnp.maximum(flat[1], 0), segments)
        counts = jnp.zeros(flat[0].shape[0], jnp.int32)
        first = Rows(
            cache=rows.cache,
            numbers=numbers.reshape(-1),
            tokens=counts,
            positions=lengths.reshape(-1) - 1,
            counts=counts,
            going=lengths.reshape(-1) > 0,
            answers=jnp.zeros((counts.size, limits.max_new_tokens), jnp.int32),
        )
        first = chosen(first, model.padded_logits(hidden[:, -1]))
        return _inserted(rows, first, kept, flat[1], places, groups)

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
        before = old.positions.shape[1]
        source = jnp.arange(slots) - shift
        inside = (source >= 0) & (source < before)
        source = jnp.clip(source, 0, before - 1)
        cache = KeyValueCache(
            tuple(jnp.take(keys, source, axis=2) for keys in old.keys),
            tuple(jnp.take(values, source, axis=2) for values in old.values),
            jnp.where(inside, jnp.take(old.positions, source, axis=1), -1),
            old.end + shift,
        )
        return dataclasses.replace(rows, cache=cache)

    def keep(rows: Rows, going: Bool[Array, "b"]) -> Rows:
        return dataclasses.replace(rows, going=rows.going & going)

    def gather(rows: Rows) -> tuple[jax.Array, ...]:
        return rows.going, rows.counts, rows.positions, rows.answers

    shardings = _shardings(mesh)
    return Programs(
        prepare=jax.jit(prepare),
        empty=jax.jit(empty, static_argnums=(0, 1), out_shardings=shardings),
        take_in=jax.jit(take_in, donate_argnums=1, out_shardings=shardings),
        decode=jax.jit(decode, donate_argnums=1, out_shardings=shardings),
        move=jax.jit(move, static_argnums=1, out_shardings=shardings),
        keep=jax.jit(keep, donate_argnums=0, out_shardings=shardings),
        gather=jax.jit(gather, out_shardings=replicated(mesh)),
    )


def _inserted(
    rows: Rows,
    first: Rows,
    kept: list[tuple[Float[Array, "p h w d"], Float[Array, "p h w d"]]],
    positions: Int32[Array, "p w"],
    places: Int32[Array, "g r"],
    groups: int,
) -> Rows:
    """`rows` with prompts at `places`, their last tokens in the slot before the next."""
    cache, slots = rows.cache, rows.cache.positions.shape[1]
    width = positions.shape[1]
    # Where in the prompt each slot's token is; slots outside it hold nothing.
    source = jnp.arange(slots) - (cache.end - width)
    inside = (source >= 0) & (source < width)
    source = jnp.clip(source, 0, width - 1)

    def put(whole: jax.Array, new: jax.Array) -> jax.Array:
        """Rows of `new` into `whole`, row groups apart, so that nothing crosses devices."""
        grouped, fresh = (x.reshape(groups, -1, *x.shape[1:]) for x in (whole, new.astype(whole.dtype)))
        return jax.vmap(lambda w, p, f: w.at[p].set(f, mode="drop"))(grouped, places, fresh).reshape(
            whole.shape
        )

    def put_slots(whole: jax.Array, new: jax.Array) -> jax.Array:
        return put(whole, jnp.take(new, source, axis=2))

    moved = KeyValueCache(
        tuple(put_slots(held, new) for held, (new, _) in zip(cache.keys, kept, strict=True)),
        tuple(put_slots(held, new) for held, (_, new) in zip(cache.values, kept, strict=True)),
        put(cache.positions, jnp.where(inside, jnp.take(positions, source, axis=1), -1)),
        cache.end,
    )
    rest = {
        field.name: put(getattr(rows, field.name), getattr(first, field.name))
        for field in dataclasses.fields(Rows)
        if field.name != "cache"
    }
    return Rows(moved, **rest)


def _shardings(mesh: Mesh) -> Any:
    row: Any = rows(mesh)
    whole: Any = replicated(mesh)
    return Rows(KeyValueCache(row, row, row, whole), row, row, row, row, row, row)
