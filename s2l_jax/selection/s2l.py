"""SmallToLarge: balanced sampling from clusters of loss trajectories."""

import functools
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Float, Int, Int64, UInt64

from s2l_jax.clustering.distances import DISTANCES
from s2l_jax.config.options import Inherits, OneOf
from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.selection.balanced import (
    balanced_order,
    balanced_order_of_source,
    order_by_source,
    shares,
)
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.known import Known, drawn_numbers
from s2l_jax.selection.method import StratifyBy, method
from s2l_jax.selection.ranking import Ranking

_log = logging.getLogger(__name__)

_LEAST_LOSS = 1e-6  # nats; an example without a loss has 0, which has no logarithm


def _check(
    known: Known,
    *,
    num_clusters: int,
    stratify_by: str,
    features: str,
    every: int,
    num_checkpoints: int,
    log_losses: bool,
    **others: Any,
) -> None:
    known.check_num_clusters(num_clusters, "s2l")
    if features == "hidden_states":
        of_losses = {"every": every != 1, "num_checkpoints": num_checkpoints, "log_losses": log_losses}
        if asked := [name for name, is_set in of_losses.items() if is_set]:
            raise InputError(f"s2l: {asked[0]} is of losses, and features='hidden_states' has none")
    elif known.num_columns is not None:
        kept = _check_thinning(known.num_columns, every, num_checkpoints)
        if features == "loss_falls":
            _check_falls(kept)
    if stratify_by == "source":
        known.check_sources("s2l")


@method("s2l", needs=["trajectories"], needs_for={"hidden_states": ["hidden_states"]}, check=_check)
def s2l(
    inputs: SelectionInputs,
    count: int,
    seed: int,
    *,
    num_clusters: Annotated[int, Ge(1), Inherits("clustering.num_clusters")] = 100,
    stratify_by: Annotated[StratifyBy, Inherits("selection.stratify_by")] = "source",
    min_cluster_size: Annotated[int, Ge(0), Inherits("selection.min_cluster_size")] = 2,
    features: Literal["trajectories", "hidden_states", "loss_falls"] = "trajectories",
    every: Annotated[int, Ge(1)] = 1,
    num_checkpoints: Annotated[int, Ge(0)] = 0,
    distance: Annotated[str, OneOf(DISTANCES)] = "euclidean",
    log_losses: bool = False,
    standardise: bool = False,
    cluster_small_sources: bool = False,
) -> Ranking:
    """SmallToLarge (arXiv 2403.07384): balanced sampling from clusters of loss trajectories.

    Options:
      num_clusters: K, of each source with stratify_by="source"; fewer where there are fewer distinct
        trajectories, which is logged.
      stratify_by: "source" is the official code: the budget is first split over the sources, and
        each source larger than its share is clustered on its own. Sources taken whole, or not at
        all, are one cluster each. Without sources the pool is one source. "none" is the paper's
        text: one clustering of all trajectories, Algorithm 1.
      min_cluster_size: with stratify_by="source", clusters of at most this size are left until last.
      features: what is clustered: loss "trajectories" (the paper); "hidden_states" (its comparison in figure
        6); or "loss_falls", how much the loss fell from each checkpoint to the next, whatever its level.
      every: use every so-many-th column, as if checkpoints were this many times as far apart.
      num_checkpoints: use the first so many columns, as if training had ended there; 0: all. `every`
        thins them.
      distance: between trajectories: "euclidean" (the paper), "cosine" or "correlation"; see
        `clustering.KMeans`.
      log_losses: cluster the logarithms of the losses, none taken below 1e-6.
      standardise: bring each column to mean 0 and variance 1 over the pool, after the logarithm.
      cluster_small_sources: cluster sources that are taken whole too, so that smaller subsets of this one
        (`Selection.first`) are balanced within them. A token budget, which comes to fewer examples
        than there might be, always does.
    """
    others = {"every": every, "num_checkpoints": num_checkpoints, "log_losses": log_losses}
    points = _points(inputs, features, standardise=standardise, **others)
    priority = priorities(inputs.ids, seed)
    if stratify_by == "none":
        labels, centroids = _cluster(
            points, "the pool", num_clusters=num_clusters, seed=seed, distance=distance
        )
        order = balanced_order(labels, priority)
        return Ranking(
            order,
            labels=labels,
            centroids=centroids,
            stands_for_cluster=True,
            reasons=("its cluster's share",),
        )
    if inputs.sources is None:
        names, codes, numbers = None, np.zeros(len(points), np.int64), np.zeros(1, np.int64)
    else:
        names, codes = np.unique(inputs.sources, return_inverse=True)
        numbers = drawn_numbers(names, seed)
    return _by_source(
        points,
        names,
        codes,
        numbers,
        count,
        priority,
        cluster_small_sources=cluster_small_sources,
        min_cluster_size=min_cluster_size,
        cluster=functools.partial(_cluster, num_clusters=num_clusters, seed=seed, distance=distance),
    )


def _points(
    inputs: SelectionInputs,
    features: str,
    *,
    every: int,
    num_checkpoints: int,
    log_losses: bool,
    standardise: bool,
) -> Float[np.ndarray, "n d"]:
    """What is clustered, a row for each example."""
    if features == "hidden_states":
        return _scaled(inputs.hidden_states, False, True) if standardise else inputs.hidden_states
    losses = thinned(inputs.trajectories, every, num_checkpoints)
    if features == "loss_falls":
        _check_falls(losses.shape[1])
        losses = _scaled(losses, True, False) if log_losses else losses
        falls = losses[:, :-1] - losses[:, 1:]
        return _scaled(falls, False, True) if standardise else falls
    return _scaled(losses, log_losses, standardise) if log_losses or standardise else losses


def thinned(
    trajectories: Float[np.ndarray, "n t"], every: int, num_checkpoints: int
) -> Float[np.ndarray, "n s"]:
    """Every so-many-th of the first columns (0: of all), as a view.

    Raises:
      InputError: more columns than there are, or none left.
    """
    _check_thinning(trajectories.shape[1], every, num_checkpoints)
    return trajectories[:, : num_checkpoints or None][:, every - 1 :: every]


def _check_thinning(columns: int, every: int, num_checkpoints: int) -> int:
    """How many columns are left."""
    if num_checkpoints > columns:
        raise InputError(
            f"s2l: num_checkpoints={num_checkpoints}, but trajectories have {columns} columns; use at most "
            f"{columns}"
        )
    kept = num_checkpoints or columns
    if every > kept:
        raise InputError(
            f"s2l: every={every} leaves none of the {kept} trajectory columns; use at most {kept}"
        )
    return kept // every


def _check_falls(columns: int) -> None:
    if columns < 2:
        raise InputError("s2l: features='loss_falls' needs two checkpoints, and there is one")


def _scaled(
    trajectories: Float[np.ndarray, "n t"], log_losses: bool, standardise: bool
) -> Float[np.ndarray, "n t"]:
    scaled = np.empty(trajectories.shape, np.float32)
    for column in range(trajectories.shape[1]):
        values = trajectories[:, column].astype(np.float32)
        if log_losses:
            values = np.log(np.maximum(values, np.float32(_LEAST_LOSS)))
        if standardise:
            spread = values.std(dtype=np.float64)
            values = (values - values.mean(dtype=np.float64)) / (spread if spread > 0 else 1.0)
        scaled[:, column] = values
    return scaled


def _by_source(
    trajectories: Float[np.ndarray, "n t"],
    names: np.ndarray | None,
    codes: Int[np.ndarray, " n"],
    numbers: Int64[np.ndarray, " s"],
    count: int,
    priority: UInt64[np.ndarray, " n"],
    *,
    cluster_small_sources: bool,
    min_cluster_size: int,
    cluster: Callable[[np.ndarray, str], tuple[np.ndarray, np.ndarray]],
) -> Ranking:
    """The official code's rule; clusters are numbered source by source, in order of name.

    Sources of one size share the budget in the order of their `numbers`.
    """
    labels, reason_of = np.zeros(len(codes), np.int32), np.zeros(len(codes), np.int8)
    centroids: list[np.ndarray] = []
    cluster_sources: list[str] = []
    orders: list[Int64[np.ndarray, "_"]] = []
    sizes = np.bincount(codes)
    rows_of = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    for code, share in enumerate(shares(np.bincount(numbers[codes]), count)[numbers]):
        rows = rows_of[code]
        own = trajectories[rows]
        name = "" if names is None else str(names[code])
        if share and (share < len(rows) or cluster_small_sources):
            within, means = cluster(own, f"source {name!r}" if name else "the pool")
            order = balanced_order_of_source(within, priority[rows], min_cluster_size=min_cluster_size)
            reason_of[rows] = np.where(np.bincount(within)[within] > min_cluster_size, 0, 3)
        else:
            within = np.zeros(len(rows), np.int32)
            means = own.mean(0, dtype=np.float64, keepdims=True).astype(np.float32)
            order = np.argsort(priority[rows], kind="stable")
            reason_of[rows] = 1 if share else 2
        orders.append(rows[order])
        labels[rows] = within + len(cluster_sources)
        centroids.append(means)
        cluster_sources += [name] * len(means)
    return Ranking(
        order_by_source(numbers[codes], orders),
        labels=labels,
        centroids=np.concatenate(centroids),
        cluster_sources=cluster_sources if names is not None else None,
        stands_for_cluster=True,
        reasons=(
            "its cluster's share",
            "its source is taken whole",
            "its source gets nothing of this budget",
            f"clusters of at most {min_cluster_size} rows come last",
        ),
        reason_of=reason_of,
    )


def _cluster(
    trajectories: Float[np.ndarray, "n t"], where: str, *, num_clusters: int, seed: int, distance: str
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "k t"]]:
    from s2l_jax.clustering import KMeans, count_distinct, fit_sharing_programs, rescaled

    distinct = count_distinct(rescaled(trajectories, distance), at_least=num_clusters)
    if distinct < num_clusters:
        _log.info(
            "%s has %d distinct trajectories: %d clusters instead of %d",
            where,
            distinct,
            distinct,
            num_clusters,
        )
    # Sources of fewer clusters share the compiled program of those with all.
    kmeans = KMeans(distinct, distance=distance, seed=seed)
    fit_sharing_programs(kmeans, trajectories, num_clusters)
    return kmeans.labels_, kmeans.cluster_centers_
