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
    adjusted_rand: float  # against the clustering before this column; 0.0 at the first


class StreamingKMeans:
    """Clusters the columns seen so far, anew with each column, from where it last stood.

    After `update`: `labels_` int32 [N], `cluster_centers_` float32 [K, columns], and `records`, one
    `Refresh` per column. While there are fewer distinct rows than K, K is their number.

    It says when the clustering stopped changing. Selection never uses its labels: they depend on
    the way there, those of a fresh `KMeans` fit do not. Fed the same columns again, it records the
    same, so a resumed run replays the columns it has stored.

    Args:
      num_examples: N. A column may be longer: what follows the first N rows is padding.
      num_clusters: K.
      seed: of the first centroids.
      max_iter: Lloyd iterations after each column.
    """

    labels_: Int[np.ndarray, " n"]
    cluster_centers_: Float[np.ndarray, "k t"]

    def __init__(self, num_examples: int, num_clusters: int, seed: int = 0, *, max_iter: int = 20) -> None:
        self.num_examples = whole("StreamingKMeans: num_examples", num_examples, 1)
        self.num_clusters = whole("StreamingKMeans: num_clusters", num_clusters, 1)
        self.seed = whole("StreamingKMeans: seed", seed, 0)
        self.max_iter = whole("StreamingKMeans: max_iter", max_iter, 1)
        self.records: list[Refresh] = []
        self._rows: Rows | None = None

    def update(self, column: ArrayLike) -> Refresh:
        """Take the losses [N] of one more checkpoint, and cluster all columns so far.

        The column may be a jax array, also one sharded over several devices; it stays there.

        Raises:
          InputError: a column of another length, or with NaN or infinite values.
        """
        added = self._prepare(column)
        rows = self._rows = self._extend(added)
        columns = len(self.records) + 1
        distinct = count_distinct(rows.points, at_least=self.num_clusters, keep=to_host(rows.weights) > 0)
        active = min(self.num_clusters, distinct)
        key = key_of(self.seed)
        sample, weights = sample_rows(key, rows, self.num_clusters)
        if columns == 1:
            keys = jax.random.fold_in(key, 1)[None]
            starts = kmeans_plus_plus(keys, sample, weights, active, max_clusters=self.num_clusters)
        else:
            values = to_host(added.points)[: self.num_examples, 0]
            starts = jnp.asarray(self._warm_start(values, rows.points.shape[1]))[None]
        fitted = fit_rows(
            rows,
            starts,
            active,
            offset=jax.device_get(mean_and_variance(sample, weights)[0]),
            max_iterations=self.max_iter,
            tolerance=0.0,
            chunk_rows=0,
        )
        labels = fitted.labels[: self.num_examples]
        agreement = adjusted_rand_index(self.labels_, labels) if columns > 1 else 0.0
        self.labels_ = labels
        self.cluster_centers_ = fitted.centroids[:, :columns]
        self.records.append(Refresh(columns, fitted.inertia, agreement))
        return self.records[-1]

    def _prepare(self, column: ArrayLike) -> Rows:
        values = column if isinstance(column, jax.Array) else np.asarray(column)
        length = self._rows.num_rows if self._rows else values.size
        if values.shape != (length,) or length < self.num_examples:
            raise InputError(
                f"column {len(self.records)} of the trajectories has shape {values.shape}, "
                f"expected ({max(length, self.num_examples)},)"
            )
        real = np.arange(length) < self.num_examples
        return prepare_rows(values[:, None], real, at_least=self.num_clusters)

    def _extend(self, added: Rows) -> Rows:
        """The rows with one more column; room for columns doubles, so that few shapes compile."""
        columns = len(self.records)
        if self._rows is None:
            points = jnp.pad(added.points, ((0, 0), (0, 3)))
        else:
            points = self._rows.points
            if columns == points.shape[1]:
                points = jnp.pad(points, ((0, 0), (0, columns)))
            points = _set_column(points, added.points[:, 0], columns)
        return dataclasses.replace(added, points=points)

    def _warm_start(self, column: Float[np.ndarray, " n"], capacity: int) -> Float[np.ndarray, "k c"]:
        """The last centroids and, in the new column, the mean of each cluster's rows.

        Clusters that are new start on the first one, so that the rule for empty ones places them.
        """
        known, columns = self.cluster_centers_.shape
        sums = np.bincount(self.labels_, weights=column, minlength=known)
        start = np.zeros((self.num_clusters, capacity), np.float32)
        start[:known, :columns] = self.cluster_centers_
        start[:known, columns] = sums / np.bincount(self.labels_, minlength=known)
        start[known:] = start[0]
        return start


@functools.partial(jax.jit, donate_argnums=0)
def _set_column(
    points: Float[Array, "m c"], column: Float[Array, " m"], index: Int[Array, ""] | int
) -> Float[Array, "m c"]:
    return jax.lax.dynamic_update_slice_in_dim(points, column[:, None], index, axis=1)
