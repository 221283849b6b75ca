"""SmallToLarge: balanced sampling from clusters of loss trajectories."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Float, Int, Int64, UInt64

from s2l_jax.clustering.distances import DISTANCES, rescaled
from s2l_jax.config.options import Inherits, OneOf
from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.selection.balanced import (
    balanced_order,
    balanced_order_of_source,
    order_by_source,
    share_weights,
    shares,
)
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.known import Known, drawn_numbers
from s2l_jax.selection.method import StratifyBy, method
from s2l_jax.selection.points import check_points, num_kept, points_of, thinned
from s2l_jax.selection.ranking import Ranking, ranks

_log = logging.getLogger(__name__)


def _check(
    known: Known,
    *,
    num_clusters: int,
    stratify_by: str,
    features: str,
    every: int,
    num_checkpoints: int,
    log_losses: bool,
    pick: str,
    source_shares: str,
    **others: Any,
) -> None:
    known.check_num_clusters(num_clusters, "s2l")
    check_points(known, features, every=every, num_checkpoints=num_checkpoints, log_losses=log_losses)
    if features == "hidden_states" and (pick == "stable" or source_shares == "difficulty"):
        raise InputError(
            "s2l: pick='stable' and source_shares='difficulty' go by losses, and features='hidden_states' "
            "has none"
        )
    if pick == "stable" and known.num_columns is not None:
        _check_stable(num_kept(known.num_columns, every, num_checkpoints))
    if stratify_by == "source":
        known.check_sources("s2l")


def _check_stable(columns: int) -> None:
    if columns < 2:
        raise InputError(f"s2l: pick='stable' needs losses at two checkpoints or more, got {columns}")


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
    cluster_shares: Literal["balanced", "proportional", "square_root"] = "balanced",
    source_shares: Literal["balanced", "proportional", "square_root", "difficulty"] = "balanced",
    pick: Literal["random", "nearest", "stable"] = "random",
    init: Annotated[Literal["k-means++", "random"], Inherits("clustering.init")] = "k-means++",
    restarts: Annotated[int, Ge(1), Inherits("clustering.restarts")] = 1,
    max_iterations: Annotated[int, Ge(1), Inherits("clustering.max_iterations")] = 20,
    tolerance: Annotated[float, Ge(0.0), Inherits("clustering.tolerance")] = 0.0,
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
        thins them, and `pick` and `source_shares` go by those that are left, too.
      distance: between trajectories: "euclidean" (the paper), "cosine" or "correlation"; see
        `clustering.KMeans`.
      log_losses: cluster the logarithms of the losses, none taken below 1e-6.
      standardise: bring each column to mean 0 and variance 1 over the pool, after the logarithm.
      cluster_small_sources: cluster sources that are taken whole too, so that smaller subsets of this one
        (`Selection.first`) are balanced within them. A token budget, which comes to fewer examples
        than there might be, always does.
      cluster_shares: how clusters share the budget: "balanced" evenly (Algorithm 1), "proportional" to
        their sizes, or in between by the "square_root" of them.
      source_shares: how sources share it before, with stratify_by="source": as clusters may, or by
        "difficulty", their mean loss at the last checkpoint.
      pick: which rows of a cluster: at "random" (the paper), those "nearest" to its centroid, or those whose
        loss moves least from checkpoint to checkpoint ("stable").
      init: first centroids of k-means, "k-means++" or "random" rows.
      restarts: how many first centroids are tried; the clustering of least inertia is kept.
      max_iterations: most iterations of k-means; 20 as in the official code.
      tolerance: k-means stops once centroids move less, relative to the points' variance; see
        `clustering.KMeans`.
    """
    points = points_of(
        inputs,
        features,
        every=every,
        num_checkpoints=num_checkpoints,
        log_losses=log_losses,
        standardise=standardise,
    )
    losses = None if inputs.trajectories is None else thinned(inputs.trajectories, every, num_checkpoints)
    rule = _Rule(
        priorities(inputs.ids, seed),
        losses,
        distance,
        pick,
        cluster_shares,
        min_cluster_size,
        functools.partial(
            _cluster,
            num_clusters=num_clusters,
            distance=distance,
            init=init,
            restarts=restarts,
            max_iter=max_iterations,
            tol=tolerance,
            seed=seed,
        ),
    )
    if stratify_by == "none":
        labels, centroids = rule.cluster(points, "the pool")
        key = rule.key(points, labels, centroids, np.arange(len(points)))
        return Ranking(
            balanced_order(labels, key, cluster_shares),
            labels=labels,
            centroids=centroids,
            stands_for_cluster=True,
            reasons=(f"its cluster's share{_FIRST[pick]}",),
        )
    if inputs.sources is None:
        _log.warning("stratify_by='source', and no sources are known: all examples are taken for one source")
        names, codes, numbers = None, np.zeros(len(points), np.int64), np.zeros(1, np.int64)
    else:
        names, codes = np.unique(inputs.sources, return_inverse=True)
        numbers = drawn_numbers(names, seed)
    weights = _source_weights(source_shares, codes, losses)
    return _by_source(points, names, codes, numbers, weights, count, rule, cluster_small_sources)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """How a set of rows is clustered and drawn from; for the fields see `s2l`."""

    priority: UInt64[np.ndarray, " n"]
    losses: Float[np.ndarray, "n t"] | None
    distance: str
    pick: str
    cluster_shares: str
    min_cluster_size: int
    cluster: Callable[[np.ndarray, str], tuple[np.ndarray, np.ndarray]]

    def key(
        self,
        points: Float[np.ndarray, "m d"],
        labels: Int[np.ndarray, " m"],
        centroids: Float[np.ndarray, "k d"],
        rows: Int64[np.ndarray, " m"],
    ) -> Int[np.ndarray, " m"]:
        """By what rows of a cluster are taken, the smallest first; `rows` are their numbers in the pool."""
        priority = self.priority[rows]
        if self.pick == "random":
            return priority
        if self.pick == "nearest":
            far = _distances(rescaled(points, self.distance), labels, centroids)
        else:
            losses = np.zeros((len(rows), 0)) if self.losses is None else self.losses[rows]
            _check_stable(losses.shape[1])
            far = np.abs(np.diff(losses.astype(np.float64), axis=1)).mean(1)
        return ranks(np.lexsort((priority, far)), len(far))


_FIRST = {"random": "", "nearest": ", nearest to its centroid first", "stable": ", most stable loss first"}
_ROWS_AT_ONCE = 65_536


def _distances(
    points: Float[np.ndarray, "m d"], labels: Int[np.ndarray, " m"], centroids: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, " m"]:
    """Squared, of each row from the centroid of its cluster."""
    far = np.empty(len(points))
    for start in range(0, len(points), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        far[some] = np.square(points[some].astype(np.float64) - centroids[labels[some]]).sum(1)
    return far


def _source_weights(
    source_shares: str, codes: Int[np.ndarray, " n"], losses: Float[np.ndarray, "n t"] | None
) -> Float[np.ndarray, " s"] | None:
    """How large a share each source gets, relative to others; None for shares alike."""
    sizes = np.bincount(codes)
    if source_shares == "balanced":
        return None
    if source_shares != "difficulty":
        return share_weights(sizes, source_shares)
    if losses is None:
        raise InputError("s2l: source_shares='difficulty' needs losses")
    return np.bincount(codes, weights=losses[:, -1]) / sizes


def _by_source(
    points: Float[np.ndarray, "n d"],
    names: np.ndarray | None,
    codes: Int[np.ndarray, " n"],
    numbers: Int64[np.ndarray, " s"],
    weights: Float[np.ndarray, " s"] | None,
    count: int,
    rule: _Rule,
    cluster_small_sources: bool,
) -> Ranking:
    """The official code's rule; clusters are numbered source by source, in order of name.

    Sources of one size share the budget in the order of their `numbers`; `weights` are those of their shares.
    """
    labels, reason_of = np.zeros(len(codes), np.int32), np.zeros(len(codes), np.int8)
    centroids: list[np.ndarray] = []
    cluster_sources: list[str] = []
    orders: list[Int64[np.ndarray, "_"]] = []
    sizes = np.bincount(codes)
    rows_of = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    by_number = None if weights is None else weights[np.argsort(numbers)]
    for code, share in enumerate(shares(np.bincount(numbers[codes]), count, by_number)[numbers]):
        rows = rows_of[code]
        own = points[rows]
        name = "" if names is None else str(names[code])
        if share and (share < len(rows) or cluster_small_sources):
            within, means = rule.cluster(own, f"source {name!r}" if name else "the pool")
            key, least = rule.key(own, within, means, rows), rule.min_cluster_size
            order = balanced_order_of_source(within, key, rule.cluster_shares, min_cluster_size=least)
            reason_of[rows] = np.where(np.bincount(within)[within] > least, 0, 3)
        else:
            within = np.zeros(len(rows), np.int32)
            means = own.mean(0, dtype=np.float64, keepdims=True).astype(np.float32)
            order = np.argsort(rule.priority[rows], kind="stable")
            reason_of[rows] = 1 if share else 2
        orders.append(rows[order])
        labels[rows] = within + len(cluster_sources)
        centroids.append(means)
        cluster_sources += [name] * len(means)
    return Ranking(
        order_by_source(numbers[codes], orders, by_number),
        labels=labels,
        centroids=np.concatenate(centroids),
        cluster_sources=cluster_sources if names is not None else None,
        stands_for_cluster=True,
        reasons=(
            f"its cluster's share{_FIRST[rule.pick]}",
            "drawn at random: its source was not clustered",  # as it is taken whole, by this budget
            "its source gets nothing of this budget",
            f"clusters of at most {rule.min_cluster_size} rows come last",
        ),
        reason_of=reason_of,
    )


def _cluster(
    points: Float[np.ndarray, "n d"], where: str, *, num_clusters: int, distance: str, **options: Any
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "k t"]]:
    from s2l_jax.clustering import KMeans, count_distinct, fit_sharing_programs

    distinct = count_distinct(rescaled(points, distance), at_least=num_clusters)
    if distinct < num_clusters:
        _log.info(
            "%s has %d distinct trajectories: %d clusters instead of %d",
            where,
            distinct,
            distinct,
            num_clusters,
        )
    # Sources of fewer clusters share the compiled program of those with all.
    kmeans = KMeans(distinct, distance=distance, **options)
    fit_sharing_programs(kmeans, points, num_clusters)
    return kmeans.labels_, kmeans.cluster_centers_
