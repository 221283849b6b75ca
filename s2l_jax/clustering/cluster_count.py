"""Help with the number of clusters: what k-means makes of the same rows for several."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from s2l_jax.clustering.agreement import adjusted_rand_index
from s2l_jax.clustering.distances import rescaled
from s2l_jax.clustering.kmeans import KMeans, fit_sharing_programs
from s2l_jax.clustering.lloyd import PRECISION
from s2l_jax.clustering.rows import whole
from s2l_jax.errors import InputError

_SILHOUETTE_BLOCK = 512  # rows whose distances to the sample exist at once


@dataclasses.dataclass(frozen=True)
class ClusterCount:
    """What `repeats` fits of K clusters gave."""

    num_clusters: int
    inertia: float  # the least
    silhouette: float  # of the fit of least inertia, on a sample; from -1 to 1, higher is better separated
    stability: float  # mean adjusted Rand index between the fits' labels; 1: all the same partition


def compare_cluster_counts(
    points: ArrayLike,
    counts: Sequence[int],
    *,
    distance: str = "euclidean",
    init: str = "k-means++",
    restarts: int = 1,
    max_iter: int = 20,
    tol: float = 0.0,
    repeats: int = 3,
    seed: int = 0,
    sample: int = 4096,
) -> list[ClusterCount]:
    """Inertia, silhouette and label stability for each of several numbers of clusters, in their order.

    Inertia falls with every cluster; look for where it falls less, for a high silhouette, and for a
    K whose clusters come out alike from other first centroids.

    Args:
      points: rows [N, T].
      counts: the numbers of clusters K to try, each at least 2.
      distance, init, restarts, max_iter, tol: as in `KMeans`.
      repeats: fits of each K, with seeds `seed`, `seed + 1`, ...; at least 2.
      seed: the first.
      sample: rows that the silhouette is computed on, among themselves.

    Raises:
      InputError: no counts or one below 2, fewer than 2 repeats, or what `KMeans` refuses, among it
        more clusters than distinct rows.
    """
    tried = [whole("a cluster count to compare", count, 2) for count in counts]
    if not tried or len(set(tried)) < len(tried):
        raise InputError(f"cluster counts to compare must be different numbers from 2 up, got {tried}")
    whole("repeats of each cluster count", repeats, 2)
    model = functools.partial(
        KMeans, distance=distance, init=init, restarts=restarts, max_iter=max_iter, tol=tol
    )
    found = []
    for count in tried:
        # Fits of up to twice as many clusters share a program.
        size = 1 << (count - 1).bit_length()
        fits = [fit_sharing_programs(model(count, seed=seed + n), points, size) for n in range(repeats)]
        best = min(fits, key=lambda fit: fit.inertia_)
        pairs = itertools.combinations([fit.labels_ for fit in fits], 2)
        found.append(
            ClusterCount(
                num_clusters=count,
                inertia=best.inertia_,
                silhouette=silhouette(points, best.labels_, distance=distance, sample=sample, seed=seed),
                stability=float(np.mean([adjusted_rand_index(a, b) for a, b in pairs])),
            )
        )
    return found


def silhouette(
    points: ArrayLike, labels: ArrayLike, *, distance: str = "euclidean", sample: int = 4096, seed: int = 0
) -> float:
    """The mean silhouette coefficient of labelled rows (Rousseeuw, 1987), on a sample of them.

    With a the mean distance of a row to the others of its cluster, and b the least mean distance to
    those of another, it is (b - a) / max(a, b); 0 for a row alone in its cluster. Distances are the
    plain, not squared, Euclidean ones of rows rescaled for `distance`.

    Args:
      points: rows [N, T].
      labels: their clusters [N].
      distance: as in `KMeans`.
      sample: rows to draw without replacement; all if there are no more.
      seed: of the draw.

    Raises:
      InputError: as many labels as rows are needed; or the sample lies in one cluster.
    """
    array = points if isinstance(points, jax.Array) else np.asarray(points)
    names = np.asarray(labels)
    if names.shape != array.shape[:1]:
        raise InputError(f"silhouette: {array.shape[0]} rows have labels of shape {names.shape}")
    if sample < len(names):
        chosen = np.sort(np.random.default_rng(seed).choice(len(names), sample, replace=False))
        array, names = array[chosen], names[chosen]
    present, codes = np.unique(names, return_inverse=True)
    if len(present) < 2:
        raise InputError(f"silhouette: all {len(names)} rows of the sample are in one cluster; enlarge it")
    rows = np.asarray(rescaled(np.asarray(array, np.float32), distance))
    members = np.bincount(codes)
    total = 0.0
    for begin in range(0, len(rows), _SILHOUETTE_BLOCK):
        block = np.arange(begin, min(begin + _SILHOUETTE_BLOCK, len(rows)))
        padded = np.pad(rows[block], ((0, _SILHOUETTE_BLOCK - len(block)), (0, 0)))
        sums = _distance_sums(padded, rows, codes, len(present))
        total += _coefficients(np.asarray(sums, np.float64)[: len(block)], codes[block], members).sum()
    return float(total / len(rows))


def _coefficients(
    sums: Float[np.ndarray, "b k"], codes: Int[np.ndarray, " b"], members: Int[np.ndarray, " k"]
) -> Float[np.ndarray, " b"]:
    own = np.arange(len(sums)), codes
    others = members[codes] - 1
    within = sums[own] / np.maximum(others, 1)
    means = sums / members
    means[own] = np.inf
    nearest = means.min(1)
    largest = np.maximum(within, nearest)
    return np.where((others > 0) & (largest > 0), (nearest - within) / np.where(largest > 0, largest, 1), 0.0)


@functools.partial(jax.jit, static_argnames="clusters")
def _distance_sums(
    block: Float[Array, "b t"], rows: Float[Array, "m t"], codes: Int[Array, " m"], clusters: int
) -> Float[Array, "b k"]:
    """The summed distance of each row of the block to the rows of each cluster."""
    distances = jnp.sqrt(jnp.square(block[:, None] - rows).sum(-1))
    belongs = jax.nn.one_hot(codes, clusters, dtype=distances.dtype)
    return jnp.matmul(distances, belongs, precision=PRECISION)
