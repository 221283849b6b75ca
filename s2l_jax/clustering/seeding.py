"""First centroids for k-means: k-means++ and random rows, from a seeded sample of the rows."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from s2l_jax.clustering.rows import Rows, row_sharding

_LOW_BITS = 2**32 - 1  # what `jax.random.key` reads of a seed


def key_of(seed: int) -> PRNGKeyArray:
    """The key of a seed of any size; `jax.random.key` alone would give 2^32 that of 0."""
    key = jax.random.key(seed & _LOW_BITS)
    while seed := seed >> 32:
        key = jax.random.fold_in(key, seed & _LOW_BITS)
    return key


def sample_rows(
    key: PRNGKeyArray, rows: Rows, num_clusters: int
) -> tuple[Float[Array, "m t"], Float[Array, " m"]]:
    """A sample of the rows, with their weights, for choosing first centroids.

    All rows, or as many of positive weight, drawn with replacement, as the larger of 32,768 and 64
    per cluster; at least as many as clusters, with zeros of weight 0 after the rows. It is whole on
    every device, so first centroids do not depend on how the rows are chunked or sharded.
    """
    size = max(32_768, 1 << (64 * num_clusters - 1).bit_length())
    sample = (rows.points, rows.weights)
    if size < rows.points.shape[0]:
        sample = _draw(key, *sample, size=size)
    elif short := max(0, num_clusters - rows.points.shape[0]):
        sample = (jnp.pad(rows.points, ((0, short), (0, 0))), jnp.pad(rows.weights, (0, short)))
    sharding = row_sharding(rows.points)
    if sharding is None:
        return sample
    return _whole(NamedSharding(sharding.mesh, PartitionSpec()))(sample)


@functools.cache
def _whole(sharding: NamedSharding) -> Callable[..., tuple[Float[Array, "m t"], Float[Array, " m"]]]:
    """What puts a sample whole on every device, of other processes too."""
    return jax.jit(lambda sample: sample, out_shardings=sharding)


@functools.partial(jax.jit, static_argnames=("max_clusters",))
def random_rows(
    keys: Key[Array, " r"],
    sample: Float[Array, "m t"],
    weights: Float[Array, " m"],
    *,
    max_clusters: int,
) -> Float[Array, "r k t"]:
    """For each key, rows of positive weight drawn at random without replacement."""

    def draw(key: PRNGKeyArray) -> Float[Array, "k t"]:
        draws = jnp.where(weights > 0, jax.random.uniform(key, weights.shape, weights.dtype), -1.0)
        return sample[jax.lax.top_k(draws, max_clusters)[1]]

    return jax.vmap(draw)(keys)


@functools.partial(jax.jit, static_argnames=("max_clusters",))
def kmeans_plus_plus(
    keys: Key[Array, " r"],
    sample: Float[Array, "m t"],
    weights: Float[Array, " m"],
    num_clusters: Int[Array, ""] | int,
    *,
    max_clusters: int,
) -> Float[Array, "r k t"]:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007), once for each key; `num_clusters` rows are filled.

    Each centroid is a row drawn with probability proportional to its weighted squared distance from
    the centroids so far (the first by weight alone): of 2 + log(K) such draws, the one that lowers
    the inertia most.
    """
    candidates = 2 + int(math.log(max_clusters))
    last = jnp.max(jnp.where(weights > 0, jnp.arange(len(weights)), 0))
    columns = sample.T  # long rows of numbers, for the CPU's vector units

    def draw(key: PRNGKeyArray) -> Float[Array, "k t"]:
        def add(number, state):
            centroids, nearest = state
            cumulative = jnp.cumsum(jnp.where(number == 0, 1.0, nearest) * weights)
            draws = jax.random.uniform(jax.random.fold_in(key, number), (candidates,), weights.dtype)
            rows = jnp.searchsorted(cumulative, draws * cumulative[-1], side="right")
            drawn = sample[jnp.minimum(rows, last)]
            distances = jnp.square(columns - drawn[..., None]).sum(1)
            lowered = jnp.minimum(nearest, distances)
            best = jnp.argmin((lowered * weights).sum(1))
            return centroids.at[number].set(drawn[best]), lowered[best]

        centroids = jnp.zeros((max_clusters, sample.shape[1]), sample.dtype)
        nearest = jnp.full(len(sample), jnp.inf, sample.dtype)
        return jax.lax.fori_loop(0, num_clusters, add, (centroids, nearest))[0]

    return jax.lax.map(draw, keys)


@jax.jit
def mean_and_variance(
    sample: Float[Array, "m t"], weights: Float[Array, " m"]
) -> tuple[Float[Array, " t"], Float[Array, ""]]:
    """The weighted mean row, and the mean over the columns of their variance."""
    total = weights.sum()
    mean = (sample * weights[:, None]).sum(0) / total
    variance = (jnp.square(sample - mean) * weights[:, None]).sum(0) / total
    return mean, variance.mean()


@functools.partial(jax.jit, static_argnames=("size",))
def _draw(
    key: PRNGKeyArray,
    points: Float[Array, "n t"],
    weights: Float[Array, " n"],
    *,
    size: int,
) -> tuple[Float[Array, "m t"], Float[Array, " m"]]:
    positive = jnp.cumsum(weights > 0, dtype=jnp.int32)  # so many up to each row
    chosen = jnp.searchsorted(positive, 1 + jax.random.randint(key, (size,), 0, positive[-1], jnp.int32))
    return points[chosen], weights[chosen]
