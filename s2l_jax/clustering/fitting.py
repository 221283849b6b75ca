"""One fit: which form of Lloyd's algorithm runs, and the best of its starts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s2l_jax.clustering.distances import rescaled
from s2l_jax.clustering.host_lloyd import Fitted, lloyd_on_host
from s2l_jax.clustering.host_rows import HostRows
from s2l_jax.clustering.lloyd import LloydResult, lloyd
from s2l_jax.clustering.rows import Rows, default_chunk_rows, prepare_rows, to_host
from s2l_jax.errors import InputError

# Up to this many row-centroid pairs a fit takes exact distances: it is quick either way.
_EXACT_PAIRS = 2**21


def stays_on_host(num_rows: int, num_clusters: int) -> bool:
    """Whether rows in a CPU's memory go to `host_lloyd`: all but the few that take exact distances."""
    return num_rows * num_clusters > _EXACT_PAIRS


def fit_rows(
    rows: Rows | HostRows,
    starts: Float[Array, "r k t"],
    num_clusters: int,
    *,
    offset: Float[np.ndarray, " t"],
    max_iterations: int,
    tolerance: float,
    chunk_rows: int,
) -> tuple[Fitted, bool]:
    """Iterate from R starts, again with exact distances where rounding kept a cluster empty; keep the best.

    Returns it, and whether its distances are exact.

    Raises:
      InputError: float32 cannot tell enough rows apart.
    """
    if isinstance(rows, HostRows):
        runs = (
            lloyd_on_host(
                rows,
                start,
                offset=offset,
                max_clusters=starts.shape[1],
                chunk_rows=chunk_rows,
                max_iterations=max_iterations,
                tolerance=tolerance,
            )
            for start in np.asarray(starts)[:, :num_clusters]
        )
        best = min(runs, key=lambda fitted: (fitted.num_empty > 0, fitted.inertia))
        if not best.num_empty:
            return best, False
        rows, exact = prepare_rows(rescaled(rows.points, rows.distance), rows.weights), True
    else:
        exact = rows.points.shape[0] * starts.shape[1] <= _EXACT_PAIRS
    chunk_rows = chunk_rows or default_chunk_rows(starts.shape[0] * starts.shape[1])
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
            chunk_rows=chunk_rows,
            exact=exact,
        )
        if not to_host(result.num_empty).any():
            return _best(result, rows.num_rows, num_clusters), exact
        if exact:
            raise InputError(
                f"{num_clusters} clusters cannot be kept apart: some rows differ by less than "
                f"float32 distances can tell; scale the columns up or ask for fewer clusters"
            )
        exact = True


def _best(result: LloydResult, num_rows: int, num_clusters: int) -> Fitted:
    inertias = to_host(result.inertia_parts).astype(np.float64).sum(1)
    best = int(np.argmin(inertias))
    result = jax.tree.map(lambda leaf: leaf[best], result)
    return Fitted(
        centroids=to_host(result.centroids)[:num_clusters],
        labels=to_host(result.labels)[:num_rows],
        inertia=float(inertias[best]),
        num_iterations=int(result.num_iterations),
        num_empty=0,
    )


def padded(centroids: Float[np.ndarray, "*r k t"], size: int) -> Float[Array, "*r m t"]:
    """Centroids with zeros after them, `size` in all."""
    extra = size - centroids.shape[-2]
    return jnp.asarray(np.pad(centroids, [(0, 0)] * (centroids.ndim - 2) + [(0, extra), (0, 0)]))
