"""Balanced sampling from clusters: the paper's Algorithm 1 and the official code's form of it."""

import numpy as np
from jaxtyping import Bool, Int, UInt64

from s2l_jax.data.order import mix


def priorities(ids: UInt64[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """A random-looking number per example, a function of (seed, id) alone: the smallest go first.

    A draw by priority depends on nothing but the candidates. So where a few labels change, a few
    picks change, and a larger budget on the same clusters keeps what a smaller one took.
    """
    return mix(mix(np.asarray(ids, np.uint64)) ^ mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)))


def shares(sizes: Int[np.ndarray, " k"], budget: int) -> Int[np.ndarray, " k"]:
    """How many of the budget each cluster gets (Algorithm 1 of the paper).

    From the smallest cluster to the largest, equal sizes by index, the k-th of K gets
    floor((budget - taken) / (K - k + 1)), or all it has when that is less. The sum is the smaller
    of the budget and the clusters' total.
    """
    result = np.zeros(len(sizes), np.int64)
    left = budget
    for position, cluster in enumerate(np.argsort(sizes, kind="stable")):
        result[cluster] = min(int(sizes[cluster]), left // (len(sizes) - position))
        left -= int(result[cluster])
    return result


def draw(
    labels: Int[np.ndarray, " n"], counts: Int[np.ndarray, " k"], priority: UInt64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Mark, in each cluster k, the counts[k] rows of smallest priority (equal ones by row)."""
    order = np.lexsort((priority, labels))
    sizes = np.bincount(labels, minlength=len(counts))
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = np.zeros(len(labels), bool)
    taken[order] = rank < counts[labels[order]]
    return taken


def balanced_sample(
    labels: Int[np.ndarray, " n"], budget: int, priority: UInt64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Mark exactly min(budget, n) rows, balanced over the clusters (Algorithm 1 of the paper)."""
    return draw(labels, shares(np.bincount(labels), budget), priority)


def balanced_sample_of_source(
    labels: Int[np.ndarray, " n"],
    budget: int,
    priority: UInt64[np.ndarray, " n"],
    *,
    min_cluster_size: int = 2,
) -> Bool[np.ndarray, " n"]:
    """Mark exactly min(budget, n) rows of one source, as the official S2L code does.

    Algorithm 1 over the clusters of more than `min_cluster_size` rows; what budget remains is drawn
    from the rows of the smaller clusters together.
    """
    sizes = np.bincount(labels)
    large = sizes > min_cluster_size
    counts = np.zeros(len(sizes), np.int64)
    counts[large] = shares(sizes[large], budget)
    taken = draw(labels, counts, priority)
    # Something remains only once the large clusters are used up, so the small ones hold all the
    # other n - taken rows, and never too few for it.
    left = min(budget, len(labels)) - int(counts.sum())
    rest = np.flatnonzero(~large[labels])
    taken[rest[np.argsort(priority[rest], kind="stable")[:left]]] = True
    return taken
