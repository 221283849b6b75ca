"""Greedy generation with a key-value cache, batched over prompts of different length."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Int32

from s2l_jax.models.decoder import (
    Context,
    Decoder,
    DecoderConfig,
    KeyValueCache,
    Params,
    bind,
    model_params,
)
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import replicated, rows

_PROMPT_MULTIPLE = 32  # prompts are padded to a multiple of this, to share compiled programs


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_token: int,
    mesh: Mesh,
    batch_size: int = 64,
    dtype: Any = jnp.float32,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """The most likely next tokens of each prompt, up to and without `end_token`.

    Args:
      model: on `mesh`.
      prompts: token ids, none empty.
      max_new_tokens: longest answer.
      end_token: end-of-sequence.
      mesh: the device mesh; prompts are spread over its row axes.
      batch_size: prompts answered together.
      dtype: of matrix products and of the cache.
      progress: called with the number of prompts answered so far.
    """
    if not prompts:
        return []
    groups = row_groups(mesh)
    batch_size = -(-min(batch_size, len(prompts)) // groups) * groups
    run = _compiled(model.config, max_new_tokens, end_token, dtype, mesh)
    params = model_params(model)
    by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), batch_size):
        batch = by_length[start : start + batch_size]
        longest = len(prompts[batch[-1]])
        width = -(-longest // _PROMPT_MULTIPLE) * _PROMPT_MULTIPLE
        tokens = np.zeros((batch_size, width), np.int32)
        lengths = np.zeros(batch_size, np.int32)  # 0 for a row that only fills the batch
        for row, number in enumerate(batch):
            lengths[row] = len(prompts[number])
            tokens[row, width - lengths[row] :] = prompts[number]
        put = functools.partial(_put, sharding=rows(mesh))
        out = np.asarray(run(params, put(tokens), put(lengths)))
        for row, number in enumerate(batch):
            answer = out[row].tolist()
            answers[number] = answer[: answer.index(end_token)] if end_token in answer else answer
        progress(min(start + batch_size, len(prompts)))
    return answers


def _put(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@functools.lru_cache(maxsize=8)
def _compiled(
    config: DecoderConfig, max_new_tokens: int, end_token: int, dtype: Any, mesh: Mesh
) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    def run(params: Params, tokens: Int32[Array, "b p"], lengths: Int32[Array, "b"]) -> Int32[Array, "b n"]:
        model = bind(config, jax.tree.map(lambda p: p.astype(dtype), params))
        batch, width = tokens.shape
        slots = width + max_new_tokens
        # Prompts end at the same slot, so that all rows write the cache at one place.
        started = jnp.arange(slots)[None] >= (width - lengths)[:, None]
        context = functools.partial(
            _context, started.astype(jnp.int32), (lengths - width)[:, None], batch, slots
        )
        cache = KeyValueCache.empty(config, batch, slots, dtype)
        hidden, cache = model.extend(tokens, context(jnp.arange(width)), cache)
        first = jnp.argmax(model.logits(hidden[:, -1]), axis=-1).astype(jnp.int32)

        def going(state: tuple) -> jax.Array:
            number, _, _, done, _ = state
            return (number < max_new_tokens) & ~done.all()

        def step(state: tuple) -> tuple:
            number, token, answer, done, cache = state
            answer = answer.at[:, number].set(jnp.where(done, end_token, token))
            done |= token == end_token
            slot = width + number
            hidden, cache = model.extend(token[:, None], context(slot[None]), cache)
            token = jnp.argmax(model.logits(hidden[:, 0]), axis=-1).astype(jnp.int32)
            return number + 1, token, answer, done, cache

        answer = jnp.full((batch, max_new_tokens), end_token, jnp.int32)
        start = (jnp.int32(0), first, answer, lengths == 0, cache)
        return jax.lax.while_loop(going, step, start)[2]

    return jax.jit(run, out_shardings=replicated(mesh))


def _context(
    key_segments: Int[Array, "b s"],
    offset: Int[Array, "b 1"],
    batch: int,
    num_slots: int,
    slots: Int[Array, "q"],
) -> Context:
    here = jnp.broadcast_to(slots[None], (batch, len(slots)))
    keys = jnp.broadcast_to(jnp.arange(num_slots)[None], (batch, num_slots))
    segments = jnp.take_along_axis(key_segments, here, axis=1)
    return Context(jnp.maximum(here + offset, 0), segments, here, key_segments, keys)
