"""Lloyd's algorithm over rows that stay in the host's memory, on all cores: the iterations of `lloyd.lloyd`.

XLA runs most loops of a pass over the rows on one core. Here a pass goes in pieces, several at a time, each
through one compiled function that labels its rows. The sums over clusters are float64, and only rows that
change cluster change them, so they hardly depend on how the rows are cut.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from s2l_jax.clustering.host_rows import HostRows
from s2l_jax.clustering.lloyd import PRECISION
from s2l_jax.clustering.rows import bucket

_PIECE_ROWS = 2**17  # most rows of a piece, unless told otherwise
_BLOCK_ROWS = 256  # rows whose products with a group of centroids fit a core's cache
_GROUP = 128  # most centroids of a group; compiling one much larger takes minutes
_UNROLLED = 16  # centroids compared in one loop over a block's rows


_Part = TypeVar("_Part")


@dataclasses.dataclass
class Fitted:
    """The end of one run of Lloyd's algorithm."""

    centroids: Float[np.ndarray, "k t"]
    labels: Int[np.ndarray, " n"]
    inertia: float
    num_iterations: int
    num_empty: int


def lloyd_on_host(
    rows: HostRows,
    start: Float[np.ndarray, "k t"],
    *,
    offset: Float[np.ndarray, " t"],
    max_clusters: int,
    chunk_rows: int,
    max_iterations: int,
    tolerance: float,
) -> Fitted:
    """Iterate from one start; see `lloyd.lloyd` for what an iteration does, and the rule for empty clusters.

    Memory beyond the rows: 4 bytes a row for the labels, and a few pieces. Programs are compiled for
    `max_clusters` centroids, at least K, and for pieces of about `chunk_rows` rows (0 chooses).
    """
    with _Run(rows, start - offset, offset, max_clusters, chunk_rows) as run:
        iteration = moves = 0
        before = None  # nothing to compare with: go on
        while True:
            counts = run.relabel()
            empty = np.flatnonzero(counts == 0)
            if len(empty) and moves <= len(start):
                run.move(empty[0], run.farthest_row())
                before, moves = None, moves + 1
                continue
            settled = before is not None and np.square(run.centroids - before).sum() <= tolerance
            if len(empty) or settled or iteration == max_iterations:
                break
            before = run.centroids
            run.update()
            iteration, moves = iteration + 1, 0
        return Fitted(run.centroids + offset, run.labels, run.inertia(), iteration, len(empty))


def label_on_host(
    rows: HostRows,
    centroids: Float[np.ndarray, "k t"],
    *,
    offset: Float[np.ndarray, " t"],
    max_clusters: int,
    chunk_rows: int,
) -> Int[np.ndarray, " n"]:
    """The label of each row: its nearest centroid, by the same arithmetic as `lloyd_on_host`."""
    with _Run(rows, centroids - offset, offset, max_clusters, chunk_rows) as run:
        run.label()
        return run.labels


class _Run:
    """Rows, what they are labelled with, and threads for passes over them."""

    def __init__(
        self,
        rows: HostRows,
        start: Float[np.ndarray, "k t"],
        offset: Float[np.ndarray, " t"],
        max_clusters: int,
        chunk_rows: int,
    ):
        clusters, columns = start.shape
        self._rows, self._offset, self._max_clusters = rows, offset, max_clusters
        self._totals = np.zeros((clusters, columns + 2))  # of columns, of weights, and how many rows
        self.centroids = start
        self.labels = np.full(rows.num_rows, -1, np.int32)
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        pieces = threads * -(-rows.num_rows // (threads * (chunk_rows or _PIECE_ROWS)))
        self._size = bucket(-(-rows.num_rows // pieces))
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def relabel(self) -> Float[np.ndarray, " k"]:
        """Label every row with its nearest centroid; how many of positive weight each has."""
        clusters, label = len(self.centroids), self._labeller()

        def change(which: slice, points: np.ndarray) -> Float[np.ndarray, "k c"]:
            old, new = self.labels[which], label(points)
            changed = np.flatnonzero(new != old)
            values = points[changed] - self._offset
            weights = None if self._rows.weights is None else self._rows.weights[which][changed]
            totals = _totals(new[changed], values, weights, clusters)
            if (old[changed] >= 0).all():
                totals -= _totals(old[changed], values, weights, clusters)
            old[:] = new
            return totals

        for totals in self._each_piece(change):
            self._totals += totals
        return self._totals[:, -1]

    def label(self) -> None:
        """Label every row, and nothing else."""
        label = self._labeller()

        def replace(which: slice, points: np.ndarray) -> None:
            self.labels[which] = label(points)

        for _ in self._each_piece(replace):
            pass

    def _labeller(self) -> Callable[[np.ndarray], Int[np.ndarray, " m"]]:
        """What labels a piece of the rows."""
        extra = self._max_clusters - len(self.centroids)
        halves = np.pad(np.square(self.centroids).sum(1) / 2, (0, extra), constant_values=np.inf)
        centroids = np.pad(self.centroids, ((0, extra), (0, 0)))

        def label(points: np.ndarray) -> Int[np.ndarray, " m"]:
            count = len(points)
            if missing := self._size - count:
                points = np.pad(points, ((0, missing), (0, 0)))
            return np.asarray(_nearest(points, self._offset, centroids, halves))[:count]

        return label

    def update(self) -> None:
        """Move each centroid to the weighted mean of its rows."""
        self.centroids = (self._totals[:, :-2] / self._totals[:, -2:-1]).astype(np.float32)

    def move(self, cluster: int, row: int) -> None:
        """Move one centroid to a row."""
        self.centroids = self.centroids.copy()
        self.centroids[cluster] = self._rows.piece(slice(row, row + 1))[0] - self._offset

    def farthest_row(self) -> int:
        """The row of positive weight farthest from its own centroid; of equally far ones the first."""

        def farthest(which: slice, points: np.ndarray) -> tuple[float, int]:
            distances = self._distances(which, points)
            if self._rows.weights is not None:
                distances = np.where(self._rows.weights[which] > 0, distances, 0)
            row = int(distances.argmax())
            return float(distances[row]), -(which.start + row)

        return -max(self._each_piece(farthest))[1]

    def inertia(self) -> float:
        """The weighted sum of squared distances from the own centroid."""

        def part(which: slice, points: np.ndarray) -> float:
            distances = self._distances(which, points)
            weights = self._rows.weights
            return float(
                np.sum(distances if weights is None else distances * weights[which], dtype=np.float64)
            )

        return sum(self._each_piece(part))

    def _distances(self, which: slice, points: Float[np.ndarray, "p t"]) -> Float[np.ndarray, " p"]:
        differences = points - self._offset
        differences -= self.centroids[self.labels[which]]
        return np.einsum("pt,pt->p", differences, differences)

    def _each_piece(self, work: Callable[[slice, np.ndarray], _Part]) -> Iterator[_Part]:
        """What `work` makes of each piece of the rows, in order."""
        pieces = [slice(at, at + self._size) for at in range(0, self._rows.num_rows, self._size)]
        return self._pool.map(lambda which: work(which, self._rows.piece(which)), pieces)


@jax.jit
def _nearest(
    points: Float[Array, "p t"],
    offset: Float[Array, " t"],
    centroids: Float[Array, "k t"],
    halves: Float[Array, " k"],
) -> Int[Array, " p"]:
    """The centroid of the lowest |c|^2 / 2 - x.c for each row; of equally low ones the first.

    A minimum and its place in one pass over the products, which argmin is not: XLA runs it as a
    scalar loop.
    """
    groups = -(-len(centroids) // _GROUP)
    size = -(-len(centroids) // (groups * _UNROLLED)) * _UNROLLED
    extra = groups * size - len(centroids)
    grouped = jnp.pad(centroids, ((0, extra), (0, 0))).reshape(groups, size, -1)
    bases = jnp.pad(halves, (0, extra), constant_values=jnp.inf).reshape(groups, size)

    def label_block(block):
        rows = block - offset

        def compare(group, state):
            products = jnp.einsum("kt,bt->kb", grouped[group], rows, precision=PRECISION)
            products = jax.lax.optimization_barrier(products)
            for first in range(0, size, _UNROLLED):
                lowest, label = state
                for place in range(first, first + _UNROLLED):
                    score = bases[group, place] - products[place]
                    label = jnp.where(score < lowest, group * size + place, label)
                    lowest = jnp.where(score < lowest, score, lowest)
                state = jax.lax.optimization_barrier((lowest, label))  # one loop over the block's rows each
            return state

        start = jnp.full(len(block), jnp.inf, block.dtype), jnp.zeros(len(block), jnp.int32)
        return jax.lax.fori_loop(0, groups, compare, start)[1]

    return jax.lax.map(label_block, points.reshape(-1, _BLOCK_ROWS, points.shape[1])).reshape(-1)


def _totals(
    labels: Int[np.ndarray, " m"],
    values: Float[np.ndarray, "m t"],
    weights: Float[np.ndarray, " m"] | None,
    clusters: int,
) -> Float[np.ndarray, "k c"]:
    """Weighted sums of the columns by label, then of the weights, then the rows of positive weight."""
    weighted = [values[:, column] for column in range(values.shape[1])]
    if weights is not None:
        weighted = [column * weights for column in weighted]
    counted = labels if weights is None else labels[weights > 0]
    sums = [np.bincount(labels, column, clusters) for column in (*weighted, weights)]
    return np.stack([*sums, np.bincount(counted, minlength=clusters)], axis=1)
