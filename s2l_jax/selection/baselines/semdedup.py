"""Leaving out near-duplicates in meaning before drawing at random."""

import logging
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Bool, Float32, Int, Int64

from s2l_jax.config.options import Inherits
from s2l_jax.data.order import priorities
from s2l_jax.selection.baselines.unit_rows import unit_rows
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.known import Known
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking

_log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 2048  # of a cluster, compared with all of its rows before them


def _check(known: Known, *, num_clusters: int, **others: Any) -> None:
    known.check_num_clusters(num_clusters, "semdedup")


@method("semdedup", needs=["hidden_states"], check=_check)
def semdedup(
    inputs: SelectionInputs,
    count: int,
    seed: int,
    *,
    num_clusters: Annotated[int, Ge(1), Inherits("clustering.num_clusters")] = 100,
    threshold: Annotated[float, Ge(-1), Le(1)] = 0.95,
) -> Ranking:
    """A random draw from what is left when near-duplicates are dropped.

    SemDeDup (Abbas et al., arXiv 2303.09540, algorithm 1): hidden states, as unit vectors, are clustered
    by k-means. In each cluster rows are taken from the one least like the centroid to the one most
    like it (equal ones by row), and a row is a duplicate if its cosine with any row before it is above
    the threshold. The budget is then drawn at random from the others, and from the duplicates only
    when these are used up.

    Options:
      num_clusters: K; fewer where there are fewer distinct rows. Rows of different clusters are never
        compared.
      threshold: cosine above which two rows are duplicates (1 - epsilon in the paper).
    """
    from s2l_jax.clustering import KMeans, count_distinct, fit_sharing_programs

    rows = unit_rows(inputs.hidden_states, "hidden_states")
    distinct = count_distinct(rows, at_least=num_clusters)
    kmeans = fit_sharing_programs(KMeans(distinct, seed=seed), rows, num_clusters)
    labels, centroids = kmeans.labels_, kmeans.cluster_centers_
    duplicate = find_duplicates(rows, labels, centroids, threshold)
    _log.info("semdedup: %d of %d rows are near-duplicates", duplicate.sum(), len(rows))
    return Ranking(
        np.lexsort((priorities(inputs.ids, seed), duplicate)),
        labels=labels,
        centroids=centroids,
        reasons=("drawn at random from those without near-duplicates", "a near-duplicate of another row"),
        reason_of=duplicate.astype(np.int8),
        notes={"num_duplicates": int(duplicate.sum())},
    )


def find_duplicates(
    rows: Float32[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    centroids: Float32[np.ndarray, "k d"],
    threshold: float,
) -> Bool[np.ndarray, " n"]:
    """Which rows are near-duplicates of a row that comes before them in their cluster; see `semdedup`."""
    duplicate = np.zeros(len(rows), bool)
    sizes = np.bincount(labels, minlength=len(centroids))
    members: list[Int64[np.ndarray, "_"]] = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    for own, centroid in zip(members, centroids, strict=True):
        # Summed row by row, so that equal rows are equally like the centroid.
        like = np.einsum("nd,d->n", rows[own], centroid, dtype=np.float64)
        own = own[np.argsort(like, kind="stable")]
        within = rows[own]
        for start in range(0, len(own), _ROWS_AT_ONCE):
            block = within[start : start + _ROWS_AT_ONCE]
            alike = block @ within[: start + len(block)].T > threshold
            # Of the columns from `start` on only those of rows before a row's own count.
            alike[:, start:] &= np.tri(len(block), len(block), -1, dtype=bool)
            duplicate[own[start : start + len(block)]] = alike.any(1)
    return duplicate
