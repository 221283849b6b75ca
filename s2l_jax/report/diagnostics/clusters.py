"""Whether the clusters are real: separated, not too many, and the same from another start."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from s2l_jax.clustering.agreement import adjusted_rand_within
from s2l_jax.clustering.cluster_count import silhouette
from s2l_jax.report.diagnostic import FAULT, WARNING, Measured, Verdict, diagnostic
from s2l_jax.report.findings import Findings
from s2l_jax.report.purity import largest_shares
from s2l_jax.report.runs import finite_number
from s2l_jax.trajectories.cadence import FEW_CHECKPOINTS

SEPARATED = 0.05  # silhouette below which clusters run into each other
ROWS_PER_CLUSTER = 4
TINY = 2  # rows; a cluster of no more is hardly one
UNSTABLE = 0.5  # adjusted Rand index
SETTLED = 0.9
_SAMPLE = 2048
_FEWEST = 50  # rows of a source whose silhouette is measured


@diagnostic
def clusters(found: Findings) -> Iterator[Verdict | Measured]:
    """Judges the clustering of the first selection that has one of the trajectories."""
    if found.measured_losses is None or not found.clustered_losses:
        return
    name = found.clustered_losses[0]
    labels = found.labels[name][found.measured_rows]
    sizes = np.asarray(found.part("selections")[name]["cluster_sizes"])
    yield from _checkpoints(len(found.steps))
    yield from _count(name, sizes)
    by_source = name in found.by_source
    groups = found.source_codes if by_source else np.zeros_like(found.source_codes)
    value = mean_silhouette(found.measured_losses, labels, groups)
    if value is not None:
        where = "within sources, " if by_source else ""
        yield Measured(f"silhouette of {name} ({where}from -1 to 1)", f"{value:.2f}")
        if value < SEPARATED:
            yield Verdict(
                WARNING,
                "Clusters are hardly separated",
                f"The mean silhouette of {name} is {value:.2f} (1: far apart, 0: touching).",
                "Compare numbers of clusters (clustering.compare), or a run with another `distance`.",
            )


def _checkpoints(count: int) -> Iterator[Verdict | Measured]:
    yield Measured("checkpoints of the trajectories", f"{count:,}")
    if count < FEW_CHECKPOINTS:
        yield Verdict(
            FAULT if count == 1 else WARNING,
            "Few checkpoints",
            f"Losses were measured at {count}; the official settings measure at 12."
            + (" One loss is no trajectory." if count == 1 else ""),
            "Measure at more checkpoints: by a lower trajectories.every, or trajectories.cadence='even'.",
        )


def _count(name: str, sizes: Int[np.ndarray, " k"]) -> Iterator[Verdict | Measured]:
    tiny, mean = float((sizes <= TINY).mean()), float(sizes.mean())
    yield Measured(f"clusters of {name}", f"{len(sizes):,}, of {mean:,.1f} rows in the mean")
    yield Measured(f"clusters of at most {TINY} rows", f"{100 * tiny:.0f} %")
    if mean < ROWS_PER_CLUSTER or tiny > 0.5:
        yield Verdict(
            FAULT,
            "There are far too many clusters",
            f"{name} has {len(sizes):,} clusters for {sizes.sum():,} rows; {100 * tiny:.0f} % have at "
            f"most {TINY} rows: drawing evenly from them is near to drawing at random.",
            "Lower clustering.num_clusters; with selection.stratify_by='source' each source has as many.",
        )


def mean_silhouette(
    losses: Float[np.ndarray, "m t"], labels: Int[np.ndarray, " m"], groups: Int[np.ndarray, " m"]
) -> float | None:
    """The silhouette within each group, weighted by its rows; None where no group has two clusters."""
    found = []
    for group in np.unique(groups):
        rows = np.flatnonzero((groups == group) & (labels >= 0))
        if len(rows) > _SAMPLE:
            rows = np.random.default_rng(0).choice(rows, _SAMPLE, replace=False)
        if len(rows) >= _FEWEST and len(np.unique(labels[rows])) > 1:
            found.append((silhouette(losses[rows], labels[rows]), len(rows)))
    if not found:
        return None
    values, weights = zip(*found, strict=True)
    return float(np.average(values, weights=weights))


@diagnostic
def purity(found: Findings) -> Iterator[Verdict | Measured]:
    """How far clusters of all sources together are those of one source each."""
    rows = found.rows
    if rows is None or rows.sources is None or not found.clustered:
        return
    name = found.clustered[0]
    codes, names = rows.source_codes()
    if len(names) < 2 or name in found.by_source:
        return
    _, share = largest_shares(found.labels[name], codes, len(names))
    yield Measured("rows that are of their cluster's largest source", f"{share:.0f} %")


@diagnostic
def stability(found: Findings) -> Iterator[Verdict | Measured]:
    """Whether clusters are the same from other seeds, and had settled at the last checkpoint."""
    yield from _settled(found.part("trajectories").get("refreshes") or [])
    for group in found.groups:
        names = [run.name for run in group.runs if run.name in found.clustered_losses]
        if len(names) < 2:
            continue
        sources, index = None, "adjusted Rand index"
        if found.rows is not None and set(names) <= set(found.by_source):
            sources, index = found.rows.source_codes()[0], "adjusted Rand index within sources"
        pairs = itertools.combinations(names[:4], 2)
        values = [adjusted_rand_within(found.labels[a], found.labels[b], sources) for a, b in pairs]
        if not (known := [value for value in values if value is not None]):
            continue
        agreement = float(np.mean(known))
        yield Measured(f"agreement of {group.full_label}'s clusters over seeds ({index})", f"{agreement:.2f}")
        if agreement < UNSTABLE:
            yield Verdict(
                WARNING,
                "Clusters depend on the seed",
                f"Clusterings of {group.full_label} from {len(names)} seeds agree to {agreement:.2f} "
                f"({index}; 1: the same, 0: as by chance).",
                "Use fewer clusters, more checkpoints, or more iterations (clustering.max_iterations).",
            )


def _settled(refreshes: list[Mapping[str, Any]]) -> Iterator[Verdict | Measured]:
    if len(refreshes) < 2 or (last := finite_number(refreshes[-1].get("adjusted_rand"))) is None:
        return
    yield Measured("agreement of the last two refreshes (adjusted Rand index)", f"{last:.2f}")
    if last < SETTLED:
        yield Verdict(
            WARNING,
            "The trajectory was not long enough",
            f"The last checkpoint still moved the clusters: they agree to {last:.2f} with those before it.",
            "Train the proxy longer (proxy.train.steps) or measure more often (trajectories.every).",
        )
