"""Greedy facility location: what candidates would add, by blocks of similarities, lazily or on samples."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int64

_CANDIDATES = 64  # evaluated together
_ELEMENTS = 2**24  # similarities in memory at a time
_KEPT = 2**25  # up to this many those of a step's candidates are kept until one is chosen


class Objective:
    """f of the subset so far, and what a candidate would add; see `baselines.facility_location`."""

    def __init__(self, rows: Float32[np.ndarray, "n d"]):
        self.size, columns = rows.shape
        # Padded rows are as near as can be from the start, so that they add nothing.
        self._chunk = max(256, min(-(-self.size // 256) * 256, _ELEMENTS // _CANDIDATES // 256 * 256))
        chunks = -(-self.size // self._chunk)
        pad = chunks * self._chunk - self.size
        self._rows = jnp.asarray(np.pad(rows, ((0, pad), (0, 0)))).reshape(chunks, self._chunk, columns)
        nearest = np.zeros(self.size, np.float32)
        padded = np.pad(nearest, (0, pad), constant_values=2.0)
        self._nearest = jnp.asarray(padded).reshape(chunks, self._chunk)
        # Against the empty subset, where the sum over i has a closed form.
        self.first_gains = (self.size + rows @ rows.sum(0, dtype=np.float64)) / 2
        self.value = 0.0

    def gains(self, candidates: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """What each candidate would add."""
        parts = []
        for start in range(0, len(candidates), _CANDIDATES):
            part = np.asarray(candidates[start : start + _CANDIDATES], np.int32)
            # Of few sizes, so that few programs are compiled.
            padded = np.pad(part, (0, -len(part) % 8), mode="edge")
            parts.append(np.asarray(_gains(self._rows, self._nearest, padded), np.float64)[: len(part)])
        return np.concatenate(parts)

    def add_best(self, candidates: Int[np.ndarray, " m"]) -> int:
        """Put the candidate that adds most into the subset, and return its place."""
        if len(candidates) * self.size > _KEPT:
            gains = self.gains(candidates)
            best = int(gains.argmax())
            self.add(int(candidates[best]), float(gains[best]))
            return best
        padded = np.pad(np.asarray(candidates, np.int32), (0, -len(candidates) % 8), mode="edge")
        place, gain, self._nearest = _best(self._rows, self._nearest, padded)
        self.value += float(gain)
        return int(place)

    def add(self, row: int, gain: float) -> None:
        """Put a row into the subset."""
        self._nearest = _nearer(self._rows, self._nearest, np.int32(row))
        self.value += gain


@jax.jit
def _gains(
    rows: Float[Array, "c r d"], nearest: Float[Array, "c r"], candidates: Int[Array, " m"]
) -> Float[Array, " m"]:
    wanted = rows.reshape(-1, rows.shape[-1])[candidates]

    def chunk(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        # Rows times candidates: XLA's CPU back end takes twice as long the other way round.
        similarity = (1 + jnp.dot(part[0], wanted.T, precision=jax.lax.Precision.HIGHEST)) / 2
        return jnp.maximum(similarity - part[1][:, None], 0).sum(0)

    return jax.lax.map(chunk, (rows, nearest)).sum(0)


@functools.partial(jax.jit, donate_argnums=1)
def _best(
    rows: Float[Array, "c r d"], nearest: Float[Array, "c r"], candidates: Int[Array, " m"]
) -> tuple[Int[Array, ""], Float[Array, ""], Float[Array, "c r"]]:
    """The place of the best candidate, its gain, and what is nearest with it; rows are read once."""
    wanted = rows.reshape(-1, rows.shape[-1])[candidates]

    def chunk(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        similarity = (1 + jnp.dot(part[0], wanted.T, precision=jax.lax.Precision.HIGHEST)) / 2
        return similarity, jnp.maximum(similarity - part[1][:, None], 0).sum(0)

    similarity, gains = jax.lax.map(chunk, (rows, nearest))
    total = gains.sum(0)
    best = total.argmax()
    return best, total[best], jnp.maximum(nearest, similarity[:, :, best])


@functools.partial(jax.jit, donate_argnums=1)
def _nearer(
    rows: Float[Array, "c r d"], nearest: Float[Array, "c r"], row: Int[Array, ""]
) -> Float[Array, "c r"]:
    wanted = rows.reshape(-1, rows.shape[-1])[row]
    similarity = (1 + jnp.einsum("crd,d->cr", rows, wanted, precision=jax.lax.Precision.HIGHEST)) / 2
    return jnp.maximum(nearest, similarity)


def lazy_greedy(objective: Objective, count: int) -> Int64[np.ndarray, " b"]:
    """Greedy itself, evaluating again only candidates whose old gain might still win (Minoux, 1978)."""
    bounds = np.asarray(objective.first_gains, np.float64).copy()
    order = np.empty(count, np.int64)
    for step in range(count):
        fresh = np.full(objective.size, step == 0)
        while not fresh[best := int(bounds.argmax())]:
            # The highest bounds at once: most of them would be looked at next anyway.
            width = min(_CANDIDATES, objective.size)
            top = np.argpartition(bounds, objective.size - width)[-width:]
            stale = top[~fresh[top]]
            bounds[stale] = np.minimum(bounds[stale], objective.gains(stale))
            fresh[stale] = True
        order[step] = best
        objective.add(best, float(bounds[best]))
        bounds[best] = -np.inf
    return order


def stochastic_greedy(
    objective: Objective, count: int, *, epsilon: float, seed: int
) -> Int64[np.ndarray, " b"]:
    """Greedy over a random sample at each step (Mirzasoleiman et al., arXiv 1409.7938, algorithm 1)."""
    rng = np.random.default_rng(seed)
    left = np.arange(objective.size)
    sample = max(1, math.ceil(objective.size / count * math.log(1 / epsilon)))
    order = np.empty(count, np.int64)
    for step in range(count):
        end = objective.size - step  # left[:end] are not in the subset
        width = min(sample, end)
        # A partial Fisher-Yates shuffle brings a sample without replacement to the end.
        for place in range(end - 1, end - 1 - width, -1):
            other = int(rng.integers(place + 1))
            left[place], left[other] = left[other], left[place]
        best = objective.add_best(left[end - width : end])
        order[step] = left[end - width + best]
        left[end - width + best], left[end - 1] = left[end - 1], left[end - width + best]
    return order
