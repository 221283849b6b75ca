"""The k-means estimator, with scikit-learn's habits."""

import math
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from s2l_jax.clustering.distances import check_distance, rescaled
from s2l_jax.clustering.fitting import fit_rows, padded
from s2l_jax.clustering.lloyd import nearest_centroids
from s2l_jax.clustering.rows import Rows, check_shape, count_distinct, default_chunk_rows, prepare_rows, whole
from s2l_jax.clustering.seeding import key_of, kmeans_plus_plus, mean_and_variance, random_rows, sample_rows
from s2l_jax.errors import InputError
from s2l_jax.gather import to_host

_OVERFLOW = (
    "k-means: squared distances between these rows, or their weights, are too large for float32; "
    "divide the rows or the weights by a constant"
)


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
      restarts: how many first centroids are drawn; all are iterated, and the least inertia is kept.
      max_iter: Lloyd iterations; fewer only where the centroids stop moving. The default is that of
        the official S2L code.
      tol: stop once the centroids' summed squared movement is at most `tol` times the mean variance
        of the columns; 0 goes on until nothing moves.
      seed: of the first centroids, at least 0.
      chunk_rows: rows handled at a time; memory beyond the rows is about chunk_rows x K. 0 chooses.

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
        restarts: int = 1,
        max_iter: int = 20,
        tol: float = 0.0,
        seed: int = 0,
        chunk_rows: int = 0,
    ) -> None:
        self.distance, self.init, self.tol = distance, init, tol
        self.num_clusters = whole("KMeans: num_clusters", num_clusters, 1)
        self.restarts = whole("KMeans: restarts", restarts, 1)
        self.max_iter = whole("KMeans: max_iter", max_iter, 1)
        self.seed = whole("KMeans: seed", seed, 0)
        self.chunk_rows = whole("KMeans: chunk_rows", chunk_rows, 0)
        if not 0 <= tol < math.inf:
            raise InputError(f"KMeans: tol must be a number of at least 0, got {tol}")
        check_distance(distance, "KMeans")
        if isinstance(init, str) and init not in ("k-means++", "random"):
            raise InputError(
                f'KMeans: init must be "k-means++", "random" or an array of {num_clusters} '
                f"centroids, got {init!r}"
            )
        if not isinstance(init, str) and restarts > 1:
            raise InputError(f"KMeans: {restarts} restarts from the same given centroids; leave restarts=1")

    def fit(self, X: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Self:
        """Cluster rows [N, T]: a NumPy array, or a jax array that may be sharded over its rows.

        Many rows of a NumPy array are spread over all devices (`rows.prepare_rows`); in a run of several
        processes all of them call this, with the same rows. All arithmetic on them is float32's. Rows of
        weight 0 are labelled but count for nothing.

        Raises:
          InputError: bad rows or weights (see `rows.prepare_rows`), fewer distinct rows of positive
            weight than clusters, or rows so far apart that float32 cannot hold squared distances.
        """
        return self._fit(X, sample_weight, self.num_clusters)

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None, size: int) -> Self:
        rows = self._prepare(X, sample_weight, size)
        distinct = count_distinct(rows.points, at_least=self.num_clusters, weights=rows.weights)
        if distinct < self.num_clusters:
            raise InputError(
                f"{self.num_clusters} clusters need as many distinct rows, but there are only "
                f"{distinct} among {int((rows.weights > 0).sum())}; ask for at most {distinct}"
            )
        key = key_of(self.seed)
        sample, weights = sample_rows(key, rows, size)
        mean, variance = jax.device_get(mean_and_variance(sample, weights))
        if not np.isfinite(variance):
            raise InputError(_OVERFLOW)
        fitted = fit_rows(
            rows,
            self._first_centroids(key, sample, weights, size),
            self.num_clusters,
            offset=mean,
            max_iterations=self.max_iter,
            tolerance=self.tol * float(variance),
            chunk_rows=self.chunk_rows,
        )
        if not np.isfinite(fitted.inertia):
            raise InputError(_OVERFLOW)
        self._offset, self._size = mean, size
        self.cluster_centers_, self.labels_, self.inertia_, self.n_iter_, self._exact = fitted
        return self

    def fit_predict(self, X: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Int[np.ndarray, " n"]:
        """Fit, and the labels [N]."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: ArrayLike) -> Int[np.ndarray, " n"]:
        """The nearest centroid of each row [N, T]; of equally near ones the lowest.

        Raises:
          InputError: not fitted yet, bad rows, or another number of columns than was fitted.
        """
        if not hasattr(self, "cluster_centers_"):
            raise InputError("KMeans.predict needs centroids: call fit first")
        rows = self._prepare(X, None, 1)
        columns = self.cluster_centers_.shape[1]
        if rows.points.shape[1] != columns:
            raise InputError(f"KMeans was fitted on {columns} columns, got rows of {rows.points.shape[1]}")
        labels = nearest_centroids(
            rows.points,
            padded(self.cluster_centers_, self._size),
            self._offset,
            self.num_clusters,
            shards=rows.shards,
            chunk_rows=self.chunk_rows or default_chunk_rows(self._size),
            exact=self._exact,
        )
        return to_host(labels)[: rows.num_rows]

    def _prepare(self, X: ArrayLike, sample_weight: ArrayLike | None, at_least: int) -> Rows:
        return prepare_rows(rescaled(check_shape(X), self.distance), sample_weight, at_least=at_least)

    def _first_centroids(
        self, key: Array, sample: Float[Array, "m t"], weights: Float[Array, " m"], size: int
    ) -> Float[Array, "r k t"] | Float[np.ndarray, "r k t"]:
        if isinstance(self.init, str):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(1, self.restarts + 1))
            if self.init == "random":
                return random_rows(keys, sample, weights, max_clusters=size)
            return kmeans_plus_plus(keys, sample, weights, self.num_clusters, max_clusters=size)
        given = np.asarray(self.init, np.float32)
        if given.shape != (self.num_clusters, sample.shape[1]) or not np.isfinite(given).all():
            raise InputError(
                f"KMeans: init must be {self.num_clusters} finite centroids of {sample.shape[1]} columns, "
                f"got an array of shape {given.shape}"
            )
        return padded(given, size)[None]


def fit_sharing_programs(kmeans: KMeans, X: ArrayLike, size: int) -> KMeans:
    """Fit rows [N, T] with programs compiled for `size` clusters, so that fits of up to as many share them.

    k-means++ then draws as many candidates for each centroid as for `size` clusters.
    """
    return kmeans._fit(X, None, max(size, kmeans.num_clusters))
