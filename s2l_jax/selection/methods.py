"""The selection methods, each with what it needs, in one table."""

import dataclasses
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from s2l_jax.clustering import KMeans, count_distinct
from s2l_jax.errors import InputError
from s2l_jax.selection.balanced import (
    balanced_sample,
    balanced_sample_of_source,
    priorities,
    shares,
)
from s2l_jax.selection.inputs import SelectionInputs

_log = logging.getLogger(__name__)

_NO_CENTROIDS = np.zeros((0, 0), np.float32)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a method hands back: which rows it takes, and the clusters it took them from."""

    taken: Bool[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    centroids: Float[np.ndarray, "k t"]
    cluster_sources: list[str] | None = None
    weighted: bool = False  # whether a chosen row stands for |C_k| / R_k rows


@dataclasses.dataclass(frozen=True)
class Method:
    """A selection method.

    Attributes:
      name: what users call it.
      choose: (inputs, budget, seed, **options) -> Choice, with inputs checked and budget <= N.
      needs: the fields of `SelectionInputs` it cannot do without.
      options: its options with their defaults.
    """

    name: str
    choose: Callable[..., Choice]
    needs: frozenset[str]
    options: dict[str, Any]


METHODS: dict[str, Method] = {}


def method(name: str, *, needs: Iterable[str] = ()) -> Callable:
    """Enter a function into `METHODS`; its keyword arguments with defaults are its options."""

    def enter(choose: Callable[..., Choice]) -> Callable[..., Choice]:
        options = {
            parameter.name: parameter.default
            for parameter in inspect.signature(choose).parameters.values()
            if parameter.default is not parameter.empty
        }
        METHODS[name] = Method(name, choose, frozenset(needs), options)
        return choose

    return enter


@method("s2l", needs={"trajectories"})
def s2l(
    inputs: SelectionInputs,
    budget: int,
    seed: int,
    *,
    num_clusters: int = 100,
    stratify_by: str = "source",
    min_cluster_size: int = 2,
    every: int = 1,
) -> Choice:
    """SmallToLarge (arXiv 2403.07384): balanced sampling from clusters of loss trajectories.

    Options:
      num_clusters: K; fewer where there are fewer distinct trajectories, which is logged.
      stratify_by: "source" is the official code: the budget is first split over the sources, and
        each source larger than its share is clustered on its own. Sources taken whole, or not at
        all, are one cluster each. Without sources the pool is one source. "none" is the paper's
        text: one clustering of all trajectories, Algorithm 1.
      min_cluster_size: with "source", clusters of at most this size are left until last.
      every: use every so-many-th column, as if checkpoints were this many times as far apart.
    """
    if num_clusters < 1 or every < 1 or min_cluster_size < 0:
        raise InputError(
            f"s2l: num_clusters and every must be at least 1 and min_cluster_size at least 0, got "
            f"{num_clusters}, {every} and {min_cluster_size}"
        )
    assert inputs.trajectories is not None
    assert inputs.ids is not None
    trajectories = inputs.trajectories[:, every - 1 :: every]
    if trajectories.shape[1] == 0:
        raise InputError(
            f"s2l: every={every} leaves none of the {inputs.trajectories.shape[1]} trajectory "
            f"columns; use at most {inputs.trajectories.shape[1]}"
        )
    priority = priorities(inputs.ids, seed)
    if not _by_source(stratify_by):
        labels, centroids = _cluster(trajectories, num_clusters, seed, "the pool")
        taken = balanced_sample(labels, budget, priority)
        return Choice(taken, labels, centroids, weighted=True)
    if inputs.sources is None:
        names, codes = None, np.zeros(len(trajectories), np.int64)
    else:
        names, codes = np.unique(inputs.sources, return_inverse=True)
    return _s2l_by_source(trajectories, names, codes, budget, priority, seed, num_clusters, min_cluster_size)


@method("random")
def random(inputs: SelectionInputs, budget: int, seed: int, *, stratify_by: str = "none") -> Choice:
    """A random subset; with `stratify_by="source"` the budget is split evenly over the sources."""
    assert inputs.ids is not None
    priority = priorities(inputs.ids, seed)
    labels = np.zeros(len(priority), np.int32)
    strata: Int[np.ndarray, " n"] = labels
    if _by_source(stratify_by):
        if inputs.sources is None:
            raise InputError('random: stratify_by="source" needs sources, one name per example')
        strata = np.unique(inputs.sources, return_inverse=True)[1]
    return Choice(balanced_sample(strata, budget, priority), labels, _NO_CENTROIDS)


@method("full")
def full(inputs: SelectionInputs, budget: int, seed: int) -> Choice:
    """All examples, whatever the budget."""
    size = inputs.num_examples
    return Choice(np.ones(size, bool), np.zeros(size, np.int32), _NO_CENTROIDS)


def _by_source(stratify_by: str) -> bool:
    if stratify_by not in ("none", "source"):
        raise InputError(f'stratify_by must be "none" or "source", got {stratify_by!r}')
    return stratify_by == "source"


def _s2l_by_source(
    trajectories: Float[np.ndarray, "n t"],
    names: np.ndarray | None,
    codes: Int[np.ndarray, " n"],
    budget: int,
    priority: UInt64[np.ndarray, " n"],
    seed: int,
    num_clusters: int,
    min_cluster_size: int,
) -> Choice:
    """The official code's rule; clusters are numbered source by source, in order of name."""
    taken = np.zeros(len(codes), bool)
    labels = np.zeros(len(codes), np.int32)
    centroids: list[np.ndarray] = []
    cluster_sources: list[str] = []
    for code, share in enumerate(shares(np.bincount(codes), budget)):
        rows = np.flatnonzero(codes == code)
        own = trajectories[rows]
        name = "" if names is None else str(names[code])
        if 0 < share < len(rows):
            where = f"source {name!r}" if name else "the pool"
            within, means = _cluster(own, num_clusters, seed, where)
            taken[rows] = balanced_sample_of_source(
                within, int(share), priority[rows], min_cluster_size=min_cluster_size
            )
        else:
            within = np.zeros(len(rows), np.int32)
            means = own.mean(0, dtype=np.float64, keepdims=True).astype(np.float32)
            taken[rows] = share == len(rows)
        labels[rows] = within + len(cluster_sources)
        centroids.append(means)
        cluster_sources += [name] * len(means)
    return Choice(
        taken,
        labels,
        np.concatenate(centroids),
        cluster_sources if names is not None else None,
        weighted=True,
    )


def _cluster(
    trajectories: Float[np.ndarray, "n t"], num_clusters: int, seed: int, where: str
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "k t"]]:
    distinct = count_distinct(trajectories, at_least=num_clusters)
    if distinct < num_clusters:
        _log.info(
            "%s has %d distinct trajectories: %d clusters instead of %d",
            where,
            distinct,
            distinct,
            num_clusters,
        )
    # Sources of fewer clusters share the compiled program of those with all.
    kmeans = KMeans(distinct, seed=seed, max_clusters=num_clusters).fit(trajectories)
    return kmeans.labels_, kmeans.cluster_centers_
