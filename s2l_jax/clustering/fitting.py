"""One fit: the best of its starts, with exact distances where they are needed."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from s2l_jax.clustering.lloyd import lloyd
from s2l_jax.clustering.rows import Rows, default_chunk_rows
from s2l_jax.errors import InputError
from s2l_jax.gather import to_host

# Up to this many row-centroid pairs a fit takes exact distances: it is quick either way.
_EXACT_PAIRS = 2**21


class Fitted(NamedTuple):
    """The fit of least inertia."""

    centroids: Float[np.ndarray, "k t"]
    labels: Int[np.ndarray, " n"]
    inertia: float
    num_iterations: int
    exact: bool  # distances were taken from differences, not from matrix products


def fit_rows(
    rows: Rows,
    starts: Float[Array, "r k t"] | Float[np.ndarray, "r k t"],
    num_clusters: int,
    *,
    offset: Float[np.ndarray, " t"],
    max_iterations: int,
    tolerance: float,
    chunk_rows: int,
) -> Fitted:
    """Iterate from R starts, again with exact distances where rounding kept a cluster empty; keep the best.

    Raises:
      InputError: float32 cannot tell enough rows apart.
    """
    exact = rows.points.shape[0] * starts.shape[1] <= _EXACT_PAIRS
    while True:
        result = lloyd(
            rows.points,
            rows.weights,
            starts,
            offset,
            num_clusters,
            max_iterations,
            tolerance,
            shards=rows.shards,
            chunk_rows=chunk_rows or default_chunk_rows(starts.shape[1]),
            exact=exact,
        )
        if not to_host(result.num_empty).any():
            break
        if exact:
            raise InputError(
                f"{num_clusters} clusters cannot be kept apart: some rows differ by less than "
                f"float32 distances can tell; scale the columns up or ask for fewer clusters"
            )
        exact = True
    inertias = to_host(result.inertia_parts).astype(np.float64).sum(1)
    best = int(np.argmin(inertias))
    return Fitted(
        centroids=to_host(result.centroids[best])[:num_clusters],
        labels=to_host(result.labels[best])[: rows.num_rows],
        inertia=float(inertias[best]),
        num_iterations=int(result.num_iterations[best]),
        exact=exact,
    )


def padded(centroids: Float[np.ndarray, "k t"], size: int) -> Float[np.ndarray, "m t"]:
    """Centroids with zeros after them, `size` in all."""
    return np.pad(centroids, ((0, size - len(centroids)), (0, 0)))
