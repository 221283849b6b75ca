"""Orders of preference: a method ranks the pool, and a budget takes the first rows of the ranking."""

import numpy as np
from jaxtyping import Float, Int, Int64, UInt64


def by_score(score: Float[np.ndarray, " n"], priority: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """All rows, the highest score first; equal ones by priority, the smallest first."""
    return np.lexsort((priority, -np.asarray(score)))


def in_turns(groups: Int[np.ndarray, " n"], key: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """All rows, the groups taking turns, so that for every B the first B are what `balanced.shares` gives.

    With one more example of budget exactly one group of Algorithm 1 gets one more: in each round the
    largest group is first and the smallest last (equal sizes: the highest number first), and a group
    that is used up drops out.

    Args:
      groups: of each row, numbered from 0.
      key: within a group the smallest comes first (equal ones by row).
    """
    sizes = np.bincount(groups)
    order = np.lexsort((key, groups))
    turn = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.empty(len(sizes), np.int64)
    place[np.argsort(sizes, kind="stable")[::-1]] = np.arange(len(sizes))
    return order[np.lexsort((place[groups[order]], turn))]


def places(order: Int[np.ndarray, " m"], size: int) -> Int64[np.ndarray, " n"]:
    """The place of each of `size` rows in an order of some of them, from 0; -1 for the others."""
    place = np.full(size, -1, np.int64)
    place[order] = np.arange(len(order))
    return place


def places_within(groups: Int[np.ndarray, " n"], place: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The place of each row among those of its group, from 0; -1 for rows whose place or group is -1."""
    within = np.full(len(groups), -1, np.int64)
    rows = np.flatnonzero((place >= 0) & (groups >= 0))
    own = groups[rows]
    sizes = np.bincount(own)
    order = np.lexsort((place[rows], own))
    within[rows[order]] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return within
