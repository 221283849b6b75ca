"""Balanced sampling from clusters: the paper's Algorithm 1 and the official code's form of it."""

import numpy as np
from jaxtyping import Float, Int, Int64

from s2l_jax.selection.ranking import round_robin


def shares(
    sizes: Int[np.ndarray, " k"], budget: int, weights: Float[np.ndarray, " k"] | None = None
) -> Int64[np.ndarray, " k"]:
    """How many of the budget each cluster gets (Algorithm 1 of the paper).

    From the smallest cluster to the largest, equal sizes by index, the k-th of K gets
    floor((budget - taken) / (K - k + 1)), or all it has when that is less. The sum is the smaller
    of the budget and the clusters' total. With `weights` they share it by these, as `round_robin` has it.
    """
    if weights is not None:
        groups = np.repeat(np.arange(len(sizes)), sizes)
        first = round_robin(groups, np.arange(len(groups)), weights)[:budget]
        return np.bincount(groups[first], minlength=len(sizes))
    result = np.zeros(len(sizes), np.int64)
    left = budget
    for position, cluster in enumerate(np.argsort(sizes, kind="stable")):
        result[cluster] = min(int(sizes[cluster]), left // (len(sizes) - position))
        left -= int(result[cluster])
    return result


def share_weights(sizes: Int[np.ndarray, " k"], rule: str) -> Float[np.ndarray, " k"]:
    """How large a share of a budget each group gets relative to others, by a rule of `_SHARE`."""
    return np.asarray(sizes, np.float64) ** _SHARE[rule]


# Rule -> the power of a group's size that its share goes by, as far as it has rows.
_SHARE = {"square_root": 0.5, "proportional": 1.0}


def balanced_order(
    labels: Int[np.ndarray, " n"], priority: Int[np.ndarray, " n"], rule: str = "balanced"
) -> Int64[np.ndarray, " n"]:
    """All rows in an order whose first B, for every B, are Algorithm 1's draw of B rows.

    From each cluster come the rows of smallest priority (equal ones by row). With another `rule` clusters
    share the budget by that (see `share_weights`).
    """
    weights = None if rule == "balanced" else share_weights(np.bincount(labels), rule)
    return round_robin(labels, priority, weights)


def balanced_order_of_source(
    labels: Int[np.ndarray, " n"],
    priority: Int[np.ndarray, " n"],
    rule: str = "balanced",
    *,
    min_cluster_size: int = 2,
) -> Int64[np.ndarray, " n"]:
    """The rows of one source in an order whose first B are what the official S2L code draws.

    Algorithm 1 over the clusters of more than `min_cluster_size` rows; once these are used up, the
    rows of the smaller clusters together, by priority.
    """
    large = np.bincount(labels) > min_cluster_size
    of_large, of_small = np.flatnonzero(large[labels]), np.flatnonzero(~large[labels])
    number = np.cumsum(large) - 1  # the large clusters, numbered without gaps
    first = of_large[balanced_order(number[labels[of_large]], priority[of_large], rule)]
    return np.concatenate([first, of_small[np.argsort(priority[of_small], kind="stable")]])


def order_by_source(
    sources: Int[np.ndarray, " n"],
    orders: list[Int64[np.ndarray, "_"]],
    weights: Float[np.ndarray, " s"] | None = None,
) -> Int64[np.ndarray, " n"]:
    """One order of all rows from those of the sources, which share every budget by Algorithm 1.

    Args:
      sources: of each row, numbered from 0.
      orders: of each source, its rows in order.
      weights: of each source's share, where they are not alike.
    """
    place = np.empty(len(sources), np.int64)
    for order in orders:
        place[order] = np.arange(len(order))
    return round_robin(sources, place, weights)
