"""k-means that follows trajectories as they grow, one checkpoint's column at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from s2l_jax.clustering.agreement import adjusted_rand_index
from s2l_jax.clustering.fitting import fit_rows
from s2l_jax.clustering.rows import Rows, count_distinct, prepare_rows, whole
from s2l_jax.clustering.seeding import key_of, kmeans_plus_plus, mean_and_variance, sample_rows
from s2l_jax.errors import InputError
from s2l_jax.gather import to_host


@dataclasses.dataclass(frozen=True)
class Refresh:
    """What one more column did to the clustering."""

    columns: int  # how many there are now
    inertia: float
    adjusted_rand: float  # against the clustering before this column, within sources; 0.0 at the first


class StreamingKMeans:
    """Clusters the columns seen so far, anew with each column, from where it last stood.

    After `update`: `labels_` int32 [N], `cluster_centers_` float32 [K, columns], and `records`, one
    `Refresh` per column. While there are fewer distinct rows than K, K is their number. With `sources`
    the rows of each are clustered on their own, as selection by source clusters them: clusters are numbered
    source by source, and K is of each.

    It says when the clustering stopped changing. Selection never uses its labels: they depend on
    the way there, those of a fresh `KMeans` fit do not. Fed the same columns again, it records the
    same, so a resumed run replays the columns it has stored.

    Args:
      num_examples: N. A column may be longer: what follows the first N rows is padding.
      num_clusters: K.
      seed: of the first centroids.
      sources: of each example, a number; None: all are of one.
      max_iter: Lloyd iterations after each column.
    """

    labels_: Int[np.ndarray, " n"]
    cluster_centers_: Float[np.ndarray, "k t"]

    def __init__(
        self,
        num_examples: int,
        num_clusters: int,
        seed: int = 0,
        *,
        sources: Int[np.ndarray, " n"] | None = None,
        max_iter: int = 20,
    ) -> None:
        self.num_examples = whole("StreamingKMeans: num_examples", num_examples, 1)
        self.num_clusters = whole("StreamingKMeans: num_clusters", num_clusters, 1)
        self.seed = whole("StreamingKMeans: seed", seed, 0)
        self.max_iter = whole("StreamingKMeans: max_iter", max_iter, 1)
        self.records: list[Refresh] = []
        self._rows: list[Int[np.ndarray, "_"]] = []  # of each source, where there are several
        if sources is not None and len(counts := np.unique(sources, return_counts=True)[1]) > 1:
            self._rows = np.split(np.argsort(sources, kind="stable"), np.cumsum(counts)[:-1])
        sizes = [len(rows) for rows in self._rows] or [self.num_examples]
        self._parts = [_Part(size, self.num_clusters, self.seed, self.max_iter) for size in sizes]

    def update(self, column: ArrayLike) -> Refresh:
        """Take the losses [N] of one more checkpoint, and cluster all columns so far.

        The column may be a jax array, also one sharded over several devices, and without sources it stays
        there. Many rows of the host are spread over all devices (`rows.prepare_rows`); in a run of several
        processes all of them call this, with the same column.

        Raises:
          InputError: a column of another length, or with NaN or infinite values.
        """
        values = column if isinstance(column, jax.Array) else np.asarray(column)
        self._check_shape(values)
        if self._rows:
            host = to_host(values)[: self.num_examples]
            for rows, part in zip(self._rows, self._parts, strict=True):
                part.update(host[rows])
        else:
            self._parts[0].update(values)
        before, self.labels_ = getattr(self, "labels_", None), self._labels()
        self.cluster_centers_ = np.concatenate([part.centroids for part in self._parts])
        agreement = 0.0 if before is None else self._agreement(before)
        inertia = sum(part.inertia for part in self._parts)
        self.records.append(Refresh(self._parts[0].num_columns, inertia, agreement))
        return self.records[-1]

    def _agreement(self, before: Int[np.ndarray, " n"]) -> float:
        """Of all rows, or the mean over sources by their rows: rows of two sources are always apart."""
        # Unlike `adjusted_rand_within`: a source that was one cluster and is now several has changed.
        parts = self._rows or [np.arange(self.num_examples)]
        values = [adjusted_rand_index(before[rows], self.labels_[rows]) for rows in parts]
        return float(np.average(values, weights=[len(rows) for rows in parts]))

    def _check_shape(self, values: np.ndarray | Array) -> None:
        known = self._parts[0].length
        length = values.size if known is None or self._rows else known
        if values.shape != (length,) or length < self.num_examples:
            raise InputError(
                f"column {len(self.records)} of the trajectories has shape {values.shape}, "
                f"expected ({max(length, self.num_examples)},)"
            )

    def _labels(self) -> Int[np.ndarray, " n"]:
        if not self._rows:
            return self._parts[0].labels
        labels, known = np.zeros(self.num_examples, np.int32), 0
        for rows, part in zip(self._rows, self._parts, strict=True):
            labels[rows] = known + part.labels
            known += len(part.centroids)
        return labels


class _Part:
    """The rows that are clustered together: those of a source, or all."""

    labels: Int[np.ndarray, " n"]
    centroids: Float[np.ndarray, "k t"]
    inertia: float

    def __init__(self, size: int, num_clusters: int, seed: int, max_iter: int):
        self._size, self._num_clusters, self._seed, self._max_iter = size, num_clusters, seed, max_iter
        self._rows: Rows | None = None
        self.num_columns = 0

    @property
    def length(self) -> int | None:
        """Of a column, with its padding; None before the first."""
        return self._rows.num_rows if self._rows else None

    def update(self, column: np.ndarray | Array) -> None:
        added = self._prepare(column)
        rows = self._rows = self._extend(added)
        self.num_columns += 1
        distinct = count_distinct(rows.points, at_least=self._num_clusters, weights=rows.weights)
        active = min(self._num_clusters, distinct)
        key = key_of(self._seed)
        sample, weights = sample_rows(key, rows, self._num_clusters)
        starts: Float[Array, "r k t"] | Float[np.ndarray, "r k t"]
        if self.num_columns == 1:
            keys = jax.random.fold_in(key, 1)[None]
            starts = kmeans_plus_plus(keys, sample, weights, active, max_clusters=self._num_clusters)
        else:
            values = column if isinstance(column, np.ndarray) else to_host(column)
            starts = self._warm_start(values[: self._size], rows.points.shape[1])[None]
        fitted = fit_rows(
            rows,
            starts,
            active,
            offset=jax.device_get(mean_and_variance(sample, weights)[0]),
            max_iterations=self._max_iter,
            tolerance=0.0,
            chunk_rows=0,
        )
        self.labels = fitted.labels[: self._size]
        self.centroids = fitted.centroids[:, : self.num_columns]
        self.inertia = fitted.inertia

    def _prepare(self, column: np.ndarray | Array) -> Rows:
        real = np.arange(len(column)) < self._size
        return prepare_rows(column[:, None], real, at_least=self._num_clusters)

    def _extend(self, added: Rows) -> Rows:
        """The rows with one more column; room for columns doubles, so that few shapes compile."""
        if self._rows is None:
            points = jnp.pad(added.points, ((0, 0), (0, 3)))
        else:
            points = self._rows.points
            if self.num_columns == points.shape[1]:
                points = jnp.pad(points, ((0, 0), (0, self.num_columns)))
            points = _set_column(points, added.points[:, 0], self.num_columns)
        return dataclasses.replace(added, points=points)

    def _warm_start(self, column: Float[np.ndarray, " n"], capacity: int) -> Float[np.ndarray, "k c"]:
        """The last centroids and, in the new column, the mean of each cluster's rows.

        Clusters that are new start on the first one, so that the rule for empty ones places them.
        """
        known, columns = self.centroids.shape
        sums = np.bincount(self.labels, weights=column, minlength=known)
        start = np.zeros((self._num_clusters, capacity), np.float32)
        start[:known, :columns] = self.centroids
        start[:known, columns] = sums / np.bincount(self.labels, minlength=known)
        start[known:] = start[0]
        return start


@functools.partial(jax.jit, donate_argnums=0)
def _set_column(
    points: Float[Array, "m c"], column: Float[Array, " m"], index: Int[Array, ""] | int
) -> Float[Array, "m c"]:
    return jax.lax.dynamic_update_slice_in_dim(points, column[:, None], index, axis=1)
