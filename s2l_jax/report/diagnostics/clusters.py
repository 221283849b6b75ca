"""Whether the clusters are real: separated, not too many, and the same from another start."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from s2l_jax.clustering.agreement import adjusted_rand_index
from s2l_jax.clustering.cluster_count import silhouette
from s2l_jax.report.diagnostic import FAULT, WARNING, Measured, Verdict, diagnostic
from s2l_jax.report.findings import Findings
from s2l_jax.report.purity import largest_shares
from s2l_jax.report.runs import finite_number

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
    yield from _count(name, sizes)
    value = mean_silhouette(found.measured_losses, labels, found.source_codes)
    if value is not None:
        yield Measured(f"silhouette of {name} (within sources, from -1 to 1)", f"{value:.2f}")
        if value < SEPARATED:
            yield Verdict(
                WARNING,
                "Clusters are hardly separated",
                f"The mean silhouette of {name} is {value:.2f} (1: far apart, 0: touching).",
                "Compare numbers of clusters (clustering.compare), or a run with another `distance`.",
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
    losses: Float[np.ndarray, "m t"], labels: Int[np.ndarray, " m"], sources: Int[np.ndarray, " m"]
) -> float | None:
    """The silhouette within each source, weighted by its rows; None where no source has two clusters."""
    shared = _is_shared(labels, sources)
    groups = np.zeros_like(sources) if shared else sources
    found = []
    for source in np.unique(groups):
        rows = np.flatnonzero((groups == source) & (labels >= 0))
        if len(rows) > _SAMPLE:
            rows = np.random.default_rng(0).choice(rows, _SAMPLE, replace=False)
        if len(rows) >= _FEWEST and len(np.unique(labels[rows])) > 1:
            found.append((silhouette(losses[rows], labels[rows]), len(rows)))
    if not found:
        return None
    values, weights = zip(*found, strict=True)
    return float(np.average(values, weights=weights))


def _is_shared(labels: Int[np.ndarray, " m"], sources: Int[np.ndarray, " m"]) -> bool:
    """Whether a cluster has rows of several sources, so that sources were clustered together."""
    pairs = np.unique(np.stack([labels, sources]), axis=1)
    return len(np.unique(pairs[0])) < pairs.shape[1]


@diagnostic
def purity(found: Findings) -> Iterator[Verdict | Measured]:
    """How far clusters of all sources together are those of one source each."""
    rows = found.rows
    if rows is None or rows.sources is None or not found.clustered:
        return
    labels = found.labels[found.clustered[0]]
    codes, names = rows.source_codes()
    inside = labels >= 0
    if len(names) < 2 or not _is_shared(labels[inside], codes[inside]):
        return
    _, share = largest_shares(labels, codes, len(names))
    yield Measured("rows that are of their cluster's largest source", f"{share:.0f} %")


@diagnostic
def stability(found: Findings) -> Iterator[Verdict | Measured]:
    """Whether clusters are the same from other seeds, and had settled at the last checkpoint."""
    yield from _settled(found.part("trajectories").get("refreshes") or [])
    for group in found.groups:
        names = [run.name for run in group.runs if run.name in found.clustered_losses]
        pairs = list(itertools.combinations(names[:4], 2))
        if not pairs:
            continue
        agreement = float(np.mean([adjusted_rand_index(found.labels[a], found.labels[b]) for a, b in pairs]))
        title = f"agreement of {group.full_label}'s clusters over seeds (adjusted Rand index)"
        yield Measured(title, f"{agreement:.2f}")
        if agreement < UNSTABLE:
            yield Verdict(
                WARNING,
                "Clusters depend on the seed",
                f"Clusterings of {group.full_label} from {len(names)} seeds agree to {agreement:.2f} "
                "(adjusted Rand index; 1: the same, 0: as by chance).",
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
