"""Orders of preference: a method ranks the pool, and a budget takes the first rows of the ranking."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64, UInt64

_NO_CENTROIDS = np.zeros((0, 0), np.float32)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What a method hands back: its order of preference, and how that came about.

    Attributes:
      order: distinct rows, the most wanted first; of these the budget's number is taken, or all.
      nested: whether the first rows of the order are also the choice of a smaller budget. Only then can a
        smaller subset be taken from the larger (`Selection.first`).
      labels: the cluster of each row; None for no clusters.
      centroids: of the clusters.
      cluster_sources: the source of each cluster, where sources were clustered on their own.
      stands_for_cluster: whether a chosen row weighs `|C_k| / R_k`, its cluster's rows over those chosen.
      weights: of each row, for a rule that gives them itself (draws with replacement: how often it came);
        1 where both are left out.
      scores: what rows were ranked by, if by one number.
      reasons: what decided, in a few words, and `reason_of` which of them holds for each row
        (None: the first for all). They hold for smaller budgets, too.
      notes: numbers for summary.json, such as an objective.
      subset_notes: the names of those that are of the first `count` rows together: where fewer are taken,
        they are left out.
    """

    order: Int64[np.ndarray, " m"]
    nested: bool = True
    labels: Int[np.ndarray, " n"] | None = None
    centroids: Float[np.ndarray, "k t"] = dataclasses.field(default_factory=lambda: _NO_CENTROIDS)
    cluster_sources: list[str] | None = None
    stands_for_cluster: bool = False
    weights: Float[np.ndarray, " n"] | None = None
    scores: Float[np.ndarray, " n"] | None = None
    reasons: tuple[str, ...] = ("",)
    reason_of: Int[np.ndarray, " n"] | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    subset_notes: Sequence[str] = ()


def by_score(score: Float[np.ndarray, " n"], priority: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """All rows, the highest score first; equal ones by priority, the smallest first."""
    return np.lexsort((priority, -np.asarray(score)))


def round_robin(
    groups: Int[np.ndarray, " n"],
    key: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " g"] | None = None,
) -> Int64[np.ndarray, " n"]:
    """All rows, the groups taking turns, so that for every B the first B are what `balanced.shares` gives.

    With one more example of budget exactly one group of Algorithm 1 gets one more: in each round the
    largest group is first and the smallest last (equal sizes: the highest number first), and a group
    that is used up drops out.

    Args:
      groups: of each row, numbered from 0.
      key: within a group the smallest comes first (equal ones by row).
      weights: of the groups; one of twice the weight has twice as many turns: of all rows so far a group
        that is not used up has the part that Sainte-Lague's method gives it. None: all alike.
    """
    sizes = np.bincount(groups)
    place = ranks(np.argsort(sizes, kind="stable")[::-1], len(sizes))
    turns = _turns(groups, key)
    if weights is not None:
        least = 1e-12 * np.max(weights, initial=0.0) or 1.0  # all alike where all are 0
        turns = (turns + 0.5) / np.maximum(weights, least)[groups]
    return np.lexsort((place[groups], turns))


def ranks(order: Int[np.ndarray, " m"], size: int) -> Int64[np.ndarray, " n"]:
    """The rank of each of `size` rows in an order of some of them, from 0; -1 for the others."""
    found = np.full(size, -1, np.int64)
    found[order] = np.arange(len(order))
    return found


def ranks_within(groups: Int[np.ndarray, " n"], rank: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The rank of each row among those of its group, from 0; -1 for rows whose rank or group is -1."""
    within = np.full(len(groups), -1, np.int64)
    rows = np.flatnonzero((rank >= 0) & (groups >= 0))
    within[rows] = _turns(groups[rows], rank[rows])
    return within


def _turns(groups: Int[np.ndarray, " n"], key: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The rank of each row in its group, from 0, by key (equal ones by row)."""
    sizes = np.bincount(groups)
    turns = np.empty(len(groups), np.int64)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    turns[np.lexsort((key, groups))] = np.arange(len(groups)) - starts
    return turns
