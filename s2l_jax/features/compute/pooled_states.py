"""One vector per example: a model's hidden states, pooled over its tokens."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, Int64

from s2l_jax.data.batching import Examples, row_length
from s2l_jax.data.packing import best_fit
from s2l_jax.features.compute.state_settings import StateSettings
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import Params, bind
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import local_groups, put_rows, replicated, row_constraint

CHUNK = 4096  # examples whose states are made, and may be stored, together


def hidden_states(
    config: DecoderConfig,
    params: Params,
    examples: Examples,
    mesh: Mesh,
    settings: StateSettings,
    *,
    max_length: int,
    batch_tokens: int = 16_384,
    dtype: Any = jnp.float32,
    attention: str = "auto",
    skip: Callable[[int], bool] = lambda start: False,
) -> Iterator[tuple[int, Float32[np.ndarray, "c d"]]]:
    """The vectors of all examples, CHUNK of them at a time: the number of the first, and [c, D].

    Args:
      params: on `mesh`; every process gets all vectors.
      max_length: most tokens of an example.
      batch_tokens: tokens that a device works on at a time.
      dtype: of matrix products; pooling is in float32.
      attention: "auto" or "xla"; see `parallel.attention.attention_on`.
      skip: whether the chunk that begins at an example is not wanted.

    Raises:
      InputError: settings that do not fit the model.
    """
    settings.check(config)
    config, params = _first_layers(config, params, settings.layer)
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    lengths = np.asarray(examples.lengths)
    length = row_length(lengths, max_length)
    per_group = max(1, batch_tokens // length)
    compiled = _pooled(config, mesh, dtype, attention)
    for start in range(0, len(lengths), CHUNK):
        if skip(start):
            continue
        indices = np.arange(start, min(start + CHUNK, len(lengths)))
        states = np.zeros((len(indices), config.hidden_size), np.float32)
        tokens = examples.read(indices.tolist())
        for batch, slots in _batches(tokens, length, per_group, mesh, settings.pooling):
            pooled = np.asarray(compiled(params, *put_rows(mesh, batch, axis=0), slots.shape[-1]))
            held = slots >= 0
            states[slots[held]] = pooled[held]
        yield start, states


def _first_layers(config: DecoderConfig, params: Params, layer: int) -> tuple[DecoderConfig, Params]:
    if layer in (-1, config.num_layers):
        return config, params
    fewer = dataclasses.replace(config, num_layers=layer, windows=config.windows[:layer])
    return fewer, params | {"layers": jax.tree.map(lambda p: p[:layer], params["layers"])}


@functools.lru_cache(maxsize=4)
def _pooled(config: DecoderConfig, mesh: Mesh, dtype: Any, attention: str) -> Callable[..., jax.Array]:
    """The program of all poolings, compiled once for all sweeps of these settings."""
    constrain = row_constraint(mesh)
    attend = attention_on(mesh, config, dtype, attention)

    def pooled(
        params: Params,
        tokens: Int[Array, "g r l"],
        positions: Int[Array, "g r l"],
        segments: Int[Array, "g r l"],
        weights: Float[Array, "g r l"],
        most: int,
    ) -> Float[Array, "g r s d"]:
        flat = (-1, tokens.shape[-1])
        hidden = bind(config, params)(
            tokens.reshape(flat),
            positions.reshape(flat),
            segments.reshape(flat),
            constrain=constrain,
            attend=attend,
        )
        own = segments.reshape(flat)[..., None] == jnp.arange(1, most + 1)
        shares = jnp.where(own, weights.reshape(flat)[..., None], 0.0)
        vectors = jnp.einsum(
            "bls,bld->bsd", shares, hidden.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
        )
        return vectors.reshape(*tokens.shape[:2], most, -1)

    return jax.jit(pooled, static_argnums=5, out_shardings=replicated(mesh))


def _batches(
    tokens: list[Int32[np.ndarray, "_"]], length: int, per_group: int, mesh: Mesh, pooling: str
) -> Iterator[tuple[tuple[np.ndarray, ...], Int64[np.ndarray, "g r s"]]]:
    """Packed rows of this process, and which example each segment of all rows is (-1: none)."""
    rows = best_fit(np.array([len(ids) for ids in tokens]), [length])
    groups, local = row_groups(mesh), local_groups(mesh)
    most = 1 << max(0, max(map(len, rows)) - 1).bit_length()
    size = groups * per_group
    for at in range(math.ceil(len(rows) / size)):
        slots = np.full((groups, per_group, most), -1, np.int64)
        packed = [np.zeros((len(local), per_group, length), np.int32) for _ in range(3)]
        weights = np.zeros((len(local), per_group, length), np.float32)
        for place, row in enumerate(rows[at * size : (at + 1) * size]):
            group, number = divmod(place, per_group)
            slots[group, number, : len(row)] = row
            if group not in local:
                continue
            end, mine = 0, (local.index(group), number)
            for segment, example in enumerate(row, start=1):
                ids = tokens[example]
                span = (*mine, slice(end, end + len(ids)))
                packed[0][span], packed[1][span], packed[2][span] = ids, np.arange(len(ids)), segment
                weights[span] = _weights(len(ids), pooling)
                end += len(ids)
        yield (*packed, weights), slots


def _weights(length: int, pooling: str) -> Float32[np.ndarray, " l"]:
    """What each token of an example counts in its vector."""
    if pooling == "mean":
        return np.full(length, 1 / length, np.float32)
    places = np.arange(1, length + 1)
    weights = places / places.sum() if pooling == "weighted" else places == length
    return weights.astype(np.float32)
