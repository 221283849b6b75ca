"""The k-means estimator, with scikit-learn's habits."""

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from s2l_jax.clustering.distances import DISTANCES, rescaled
from s2l_jax.clustering.lloyd import LloydResult, lloyd, nearest_centroids
from s2l_jax.clustering.rows import (
    Rows,
    count_distinct,
    default_chunk_rows,
    prepare_rows,
    to_host,
)
from s2l_jax.clustering.seeding import (
    kmeans_plus_plus,
    mean_and_variance,
    random_rows,
    sample_rows,
)
from s2l_jax.errors import InputError

# Up to this many row-centroid pairs a fit takes exact distances: it is quick either way.
_EXACT_PAIRS = 2**21


class KMeans:
    """k-means clustering by Lloyd's algorithm (see `lloyd.lloyd`).

    The same rows, seed and machine give the same labels; other chunk sizes or device counts agree
    up to float rounding. No cluster is empty, by the rule stated at `lloyd.lloyd`.

    Args:
      num_clusters: K.
      distance: "euclidean" (squared); "cosine" or "correlation" cluster rows brought to length 1,
        for "correlation" with their own mean taken off before (see `distances.rescaled`). In all
        three a centroid is the mean of its rows, rescaled as they are; it is not brought to length 1.
      init: "k-means++" (greedy), "random" (rows), or first centroids [K, T].
      max_iter: Lloyd iterations; fewer only where the centroids stop moving. The default is that of
        the official S2L code.
      tol: stop once the centroids' summed squared movement is at most `tol` times the mean variance
        of the columns; 0 goes on until nothing moves.
      seed: of the first centroids.
      chunk_rows: rows handled at a time; memory beyond the rows is about chunk_rows x K. 0 chooses.
      max_clusters: compile for this many clusters (0: num_clusters), so that fits of fewer share
        the program.

    After `fit`: `cluster_centers_` float32 [K, T], `labels_` int32 [N], `inertia_` (sum of weighted
    squared distances from the own centroid), `n_iter_`.
    """

    cluster_centers_: Float[np.ndarray, "k t"]
    labels_: Int[np.ndarray, " n"]
    inertia_: float
    n_iter_: int

    def __init__(
        self,
        num_clusters: int,
        *,
        distance: str = "euclidean",
        init: str | ArrayLike = "k-means++",
        max_iter: int = 20,
        tol: float = 0.0,
        seed: int = 0,
        chunk_rows: int = 0,
        max_clusters: int = 0,
    ) -> None:
        for name, value, least in (
            ("num_clusters", num_clusters, 1),
            ("max_iter", max_iter, 1),
            ("tol", tol, 0),
            ("chunk_rows", chunk_rows, 0),
        ):
            if not value >= least:
                raise InputError(f"KMeans: {name} must be at least {least}, got {value}")
        if isinstance(init, str) and init not in ("k-means++", "random"):
            raise InputError(
                f'KMeans: init must be "k-means++", "random" or an array of {num_clusters} '
                f"centroids, got {init!r}"
            )
        if distance not in DISTANCES:
            raise InputError(f"KMeans: distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
        self.num_clusters = num_clusters
        self.distance = distance
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.seed = seed
        self.max_clusters = max(max_clusters, num_clusters)
        self.chunk_rows = chunk_rows or default_chunk_rows(self.max_clusters)

    def fit(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Cluster rows [N, T]: a NumPy array, or a jax array that may be sharded over its rows.

        Rows of weight 0 are labelled but count for nothing.

        Raises:
          InputError: bad rows or weights (see `rows.prepare_rows`), or fewer distinct rows of
            positive weight than clusters.
        """
        rows = prepare_rows(rescaled(X, self.distance), sample_weight, at_least=self.max_clusters)
        self._check_distinct(rows)
        key = jax.random.key(self.seed)
        sample, weights = sample_rows(key, rows, self.max_clusters)
        mean, variance = jax.device_get(mean_and_variance(sample, weights))
        start = self._first_centroids(key, sample, weights, rows.points.shape[1])
        result, exact = fit_rows(
            rows,
            start,
            self.num_clusters,
            offset=mean,
            max_iterations=self.max_iter,
            tolerance=self.tol * float(variance),
            chunk_rows=self.chunk_rows,
        )
        self._offset, self._exact = mean, exact
        self.cluster_centers_ = to_host(result.centroids)[: self.num_clusters]
        self.labels_ = to_host(result.labels)[: rows.num_rows]
        self.inertia_ = total_inertia(result)
        self.n_iter_ = int(result.num_iterations)
        return self

    def fit_predict(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Int[np.ndarray, " n"]:
        """Fit, and the labels [N]."""
        return self.fit(X, sample_weight).labels_

    def predict(self, X: ArrayLike) -> Int[np.ndarray, " n"]:
        """The nearest centroid of each row [N, T]; of equally near ones the lowest.

        Raises:
          InputError: not fitted yet, bad rows, or another number of columns than was fitted.
        """
        if not hasattr(self, "cluster_centers_"):
            raise InputError("KMeans.predict needs centroids: call fit first")
        rows = prepare_rows(rescaled(X, self.distance))
        columns = self.cluster_centers_.shape[1]
        if rows.points.shape[1] != columns:
            raise InputError(f"KMeans was fitted on {columns} columns, got rows of {rows.points.shape[1]}")
        labels = nearest_centroids(
            rows.points,
            _pad_clusters(self.cluster_centers_, self.max_clusters),
            self._offset,
            self.num_clusters,
            shards=rows.shards,
            chunk_rows=self.chunk_rows,
            exact=self._exact,
        )
        return to_host(labels)[: rows.num_rows]

    def _check_distinct(self, rows: Rows) -> None:
        keep = to_host(rows.weights) > 0
        distinct = count_distinct(rows.points, at_least=self.num_clusters, keep=keep)
        if distinct < self.num_clusters:
            raise InputError(
                f"{self.num_clusters} clusters need as many distinct rows, but there are only "
                f"{distinct} among {int(keep.sum())}; ask for at most {distinct}"
            )

    def _first_centroids(
        self, key: Array, sample: Float[Array, "m t"], weights: Float[Array, " m"], columns: int
    ) -> Float[Array, "k t"]:
        if isinstance(self.init, str):
            key = jax.random.fold_in(key, 1)
            if self.init == "random":
                return random_rows(key, sample, weights, max_clusters=self.max_clusters)
            return kmeans_plus_plus(key, sample, weights, self.num_clusters, max_clusters=self.max_clusters)
        given = np.asarray(self.init, np.float32)
        if given.shape != (self.num_clusters, columns) or not np.isfinite(given).all():
            raise InputError(
                f"KMeans: init must be {self.num_clusters} finite centroids of {columns} columns, "
                f"got an array of shape {given.shape}"
            )
        return _pad_clusters(given, self.max_clusters)


def fit_rows(
    rows: Rows,
    start: Float[Array, "k t"],
    num_clusters: int,
    *,
    offset: Float[np.ndarray, " t"],
    max_iterations: int,
    tolerance: float,
    chunk_rows: int,
) -> tuple[LloydResult, bool]:
    """Run `lloyd`, again with exact distances where rounding kept a cluster empty.

    Returns the result and whether its distances are exact.
    """
    exact = rows.points.shape[0] * start.shape[0] <= _EXACT_PAIRS
    while True:
        result = lloyd(
            rows.points,
            rows.weights,
            start,
            offset,
            num_clusters,
            max_iterations,
            tolerance,
            shards=rows.shards,
            chunk_rows=chunk_rows,
            exact=exact,
        )
        if not int(result.num_empty):
            return result, exact
        if exact:
            raise InputError(
                f"{num_clusters} clusters cannot be kept apart: some rows differ by less than "
                f"float32 distances can tell; scale the columns up or ask for fewer clusters"
            )
        exact = True


def total_inertia(result: LloydResult) -> float:
    """The sum of squared distances, added up in float64."""
    return float(to_host(result.inertia_parts).astype(np.float64).sum())


def _pad_clusters(centroids: Float[np.ndarray, "k t"], size: int) -> Float[Array, "m t"]:
    return jnp.asarray(np.pad(centroids, ((0, size - len(centroids)), (0, 0))))
