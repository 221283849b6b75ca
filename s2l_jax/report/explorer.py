"""What the explorer of the page shows: a sample of rows, each with its place, losses, clusters and texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

from s2l_jax.report.findings import Findings
from s2l_jax.report.rows import PoolRows, shortened

SHOWN_ROWS = 4000
SHOWN_RUNS = 12
SHOWN_STEPS = 40
CLUSTER_EXAMPLES = 4  # taken, and as many left, that a cluster has in any sample if it has them
TEXT_CHARACTERS = 900_000  # of all shown rows together
LONGEST_TEXT = 500
_SOURCES_LISTED = 6


def explore(found: Findings, *, limit: int = SHOWN_ROWS) -> dict[str, Any] | str:
    """Everything the explorer draws, as JSON; or why there is nothing to explore."""
    losses, clustered = found.trajectories, found.clustered
    if losses is None or not losses.shape[1]:
        return "no trajectories were recorded"
    if not clustered:
        return "no selection clustered the trajectories"
    rows = found.rows or PoolRows(np.arange(len(losses), dtype=np.uint64))
    runs = [*clustered, *(name for name in found.taken if name not in clustered)]
    runs = [name for name in runs if not found.taken.get(name, np.zeros(1)).all()][:SHOWN_RUNS]
    if not runs:
        return "every selection took the whole pool"
    clusterings = [name for name in clustered if name in runs] or clustered[:1]
    labels = found.labels[clusterings[0]]
    taken = found.taken.get(runs[0], np.zeros(len(losses), bool))
    chosen = sample_rows(labels, taken, limit)
    columns = np.unique(np.linspace(0, losses.shape[1] - 1, SHOWN_STEPS).astype(int))
    shown = np.asarray(losses[chosen], np.float32)
    shown = np.where(np.isfinite(shown), shown, 0.0)
    codes, names = rows.source_codes()
    places, explained = principal_components(shown)
    maps = {f"PCA, {100 * explained:.0f} % of the variance": places}
    if (other := neighbour_map(shown)) is not None:
        maps["UMAP"] = other
    return {
        "total": len(losses),
        "steps": [int(found.steps[column]) for column in columns],
        "sources": names,
        "row": chosen,
        "id": [str(i) for i in rows.ids[chosen]],
        "source": codes[chosen],
        "tokens": None if rows.tokens is None else rows.tokens[chosen],
        "losses": np.round(shown[:, columns].astype(np.float64), 3),
        "maps": {name: np.round(at / max(float(at.std()), 1e-9), 4) for name, at in maps.items()},
        "texts": _texts(rows, chosen),
        "clusterings": {
            name: _clustering(found.labels[name], codes, names, losses, columns, chosen)
            for name in clusterings
        },
        "runs": [
            {
                "name": name,
                "clustering": name if name in clusterings else clusterings[0],
                "taken": np.flatnonzero(found.taken[name][chosen]) if name in found.taken else [],
                "picked": _picked(found, name, found.labels[name if name in clusterings else clusterings[0]]),
            }
            for name in runs
        ],
    }


def sample_rows(labels: Int[np.ndarray, " n"], taken: np.ndarray, limit: int) -> Int64[np.ndarray, " s"]:
    """At most `limit` rows in order: of each cluster some taken and some left, then any, drawn by a seed."""
    size = len(labels)
    if size <= limit:
        return np.arange(size)
    priority = np.random.default_rng(0).permutation(size)
    order = np.lexsort((priority, taken, labels))
    groups = labels[order].astype(np.int64) * 2 + taken[order]
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    rank = np.arange(size) - np.repeat(starts, np.diff(np.append(starts, size)))
    first = order[(rank < CLUSTER_EXAMPLES) & (labels[order] >= 0)]
    first = first[np.argsort(priority[first])][: limit // 2]
    rest = np.setdiff1d(np.arange(size), first)
    rest = rest[np.argsort(priority[rest])][: limit - len(first)]
    return np.sort(np.concatenate([first, rest]))


def principal_components(rows: Float[np.ndarray, "s t"]) -> tuple[Float[np.ndarray, "s 2"], float]:
    """The two directions in which trajectories differ most, and the share of their variance in these."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, scales, right = np.linalg.svd(centred, full_matrices=False)
    # The sign of a direction is arbitrary: let most of its weights be positive.
    signs = np.where(right[:2].sum(axis=1) < 0, -1.0, 1.0)
    places = np.zeros((len(rows), 2))
    places[:, : len(signs)] = left[:, :2] * (scales[:2] * signs)
    total = float(np.square(scales).sum())
    return places, float(np.square(scales[:2]).sum()) / total if total > 0 else 1.0


def neighbour_map(rows: Float[np.ndarray, "s t"]) -> Float[np.ndarray, "s 2"] | None:
    """UMAP's map of the same rows; None without umap-learn, or for a handful of rows."""
    if len(rows) < 50:
        return None
    try:
        import umap
    except ImportError:
        return None
    return umap.UMAP(random_state=0, n_jobs=1).fit_transform(rows)


def _texts(rows: PoolRows, chosen: Int64[np.ndarray, " s"]) -> list[list[str]] | None:
    if rows.texts is None:
        return None
    limit = min(LONGEST_TEXT, TEXT_CHARACTERS // (2 * max(len(chosen), 1)))
    return [[shortened(part, limit) for part in text] for text in rows.texts([int(row) for row in chosen])]


def _clustering(
    labels: Int[np.ndarray, " n"],
    codes: Int[np.ndarray, " n"],
    names: Sequence[str],
    losses: Float[np.ndarray, "n t"],
    columns: Int[np.ndarray, " c"],
    chosen: Int64[np.ndarray, " s"],
) -> dict[str, Any]:
    """The cluster of each shown row, and of each cluster its size, sources and mean trajectory."""
    count = int(labels.max()) + 1
    inside = np.flatnonzero(labels >= 0)
    own = labels[inside].astype(np.int64)
    sizes = np.bincount(own, minlength=count)
    sums = np.zeros((count, len(columns)))
    for part in np.array_split(inside, max(1, len(inside) // 100_000)):
        values = np.asarray(losses[part], np.float64)[:, columns]
        np.add.at(sums, labels[part].astype(np.int64), np.where(np.isfinite(values), values, 0.0))
    by_source = np.zeros((count, max(len(names), 1)), np.int64)
    np.add.at(by_source, (own, codes[inside]), 1)
    means = sums / np.maximum(sizes, 1)[:, None]
    clusters = []
    for k in range(count):
        largest = [s for s in np.argsort(-by_source[k], kind="stable")[:_SOURCES_LISTED] if by_source[k, s]]
        sources = [[int(s), int(by_source[k, s])] for s in largest] if names else []
        clusters.append({"size": int(sizes[k]), "sources": sources, "mean": np.round(means[k], 3)})
    return {"labels": labels[chosen], "clusters": clusters}


def _picked(found: Findings, name: str, labels: Int[np.ndarray, " n"]) -> list[int]:
    taken = found.taken.get(name)
    if taken is None:
        return []
    return np.bincount(
        labels[taken & (labels >= 0)].astype(np.int64), minlength=int(labels.max()) + 1
    ).tolist()
