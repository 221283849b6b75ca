"""Balanced sampling from clusters: the paper's Algorithm 1 and the official code's form of it."""

import numpy as np
from jaxtyping import Int, Int64, UInt64

from s2l_jax.data.order import priorities as priorities
from s2l_jax.selection.ranking import in_turns


def shares(sizes: Int[np.ndarray, " k"], budget: int) -> Int64[np.ndarray, " k"]:
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


def balanced_order(
    labels: Int[np.ndarray, " n"], priority: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """All rows in an order whose first B, for every B, are Algorithm 1's draw of B rows.

    From each cluster come the rows of smallest priority (equal ones by row).
    """
    return in_turns(labels, priority)


def balanced_order_of_source(
    labels: Int[np.ndarray, " n"], priority: UInt64[np.ndarray, " n"], *, min_cluster_size: int = 2
) -> Int64[np.ndarray, " n"]:
    """The rows of one source in an order whose first B are what the official S2L code draws.

    Algorithm 1 over the clusters of more than `min_cluster_size` rows; once these are used up, the
    rows of the smaller clusters together, by priority.
    """
    large = np.bincount(labels) > min_cluster_size
    of_large, of_small = np.flatnonzero(large[labels]), np.flatnonzero(~large[labels])
    number = np.cumsum(large) - 1  # the large clusters, numbered without gaps
    first = of_large[balanced_order(number[labels[of_large]], priority[of_large])]
    return np.concatenate([first, of_small[np.argsort(priority[of_small], kind="stable")]])


def order_by_source(
    sources: Int[np.ndarray, " n"], orders: list[Int64[np.ndarray, "_"]]
) -> Int64[np.ndarray, " n"]:
    """One order of all rows from those of the sources, which share every budget by Algorithm 1.

    Args:
      sources: of each row, numbered from 0.
      orders: of each source, its rows in order.
    """
    place = np.empty(len(sources), np.int64)
    for order in orders:
        place[order] = np.arange(len(order))
    return in_turns(sources, place)
