"""Whether rows whose losses are alike have gradients that are alike: pairs of rows, and clusters of them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

PERMUTATIONS = 99  # that chance is judged by
BINS = 20
_PAIRS = 10_000  # of each kind that are looked at
_AT_ONCE = 4096  # pairs whose difference is in memory


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of rows: of one cluster, of two clusters of one source, of two sources; each drawn at random."""

    within: Int64[np.ndarray, "2 a"]
    between: Int64[np.ndarray, "2 b"]
    sources: Int64[np.ndarray, "2 c"]
    of_source: Int64[np.ndarray, "2 d"]  # of one source, whatever their clusters

    @classmethod
    def drawn(cls, labels: Int[np.ndarray, " n"], sources: Int[np.ndarray, " n"]) -> "Pairs":
        """Of all pairs at most so many of each kind, by a fixed seed."""
        rng, size = np.random.default_rng(0), len(labels)
        if size * (size - 1) // 2 <= 4 * _PAIRS:
            some = np.stack(np.triu_indices(size, 1))
        else:
            some = rng.integers(0, size, (2, 20 * _PAIRS))
            some = some[:, some[0] != some[1]]
        same_source, same_cluster = _equal(sources, some), _equal(labels, some)
        return cls(
            _cut(_all_within(labels, rng), rng),
            _cut(some[:, same_source & ~same_cluster], rng),
            _cut(some[:, ~same_source], rng),
            _cut(some[:, same_source], rng),
        )


def _equal(codes: Int[np.ndarray, " n"], pairs: Int64[np.ndarray, "2 m"]) -> np.ndarray:
    return codes[pairs[0]] == codes[pairs[1]]


def _all_within(labels: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, "2 a"]:
    """All pairs of each cluster, or of one of more than 400 rows a sample."""
    found = [np.zeros((2, 0), np.int64)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        pairs = np.stack(np.triu_indices(len(rows), 1)) if len(rows) <= 400 else None
        if pairs is None:
            pairs = rng.integers(0, len(rows), (2, _PAIRS))
            pairs = pairs[:, pairs[0] != pairs[1]]
        found.append(rows[pairs])
    return np.concatenate(found, axis=1)


def _cut(pairs: Int64[np.ndarray, "2 m"], rng: np.random.Generator) -> Int64[np.ndarray, "2 k"]:
    if pairs.shape[1] <= _PAIRS:
        return pairs
    return pairs[:, np.sort(rng.choice(pairs.shape[1], _PAIRS, replace=False))]


def distances(vectors: Float[np.ndarray, "n d"], pairs: Int64[np.ndarray, "2 m"]) -> Float[np.ndarray, " m"]:
    """Euclidean, of the two rows of each pair."""
    found = np.empty(pairs.shape[1])
    for start in range(0, len(found), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        first, second = pairs[:, some]
        found[some] = np.linalg.norm(vectors[first].astype(np.float64) - vectors[second], axis=1)
    return found


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """The same directions with length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def rank_correlation(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " m"]) -> float | None:
    """Spearman's; None where one of the two does not vary."""
    import scipy.stats

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(scipy.stats.spearmanr(a, b).statistic)


def correlation_test(
    points: Float[np.ndarray, "n t"],
    gradients: Float[np.ndarray, " m"],
    pairs: Int64[np.ndarray, "2 m"],
    sources: Int[np.ndarray, " n"],
) -> tuple[float | None, float | None]:
    """The rank correlation of distances of points with those of gradients, and how likely chance reaches it.

    As Mantel's test has it, by permuting which row has which point, within sources: pairs of rows are not
    independent. `gradients` are distances of the `pairs`.
    """
    import scipy.stats

    found = rank_correlation(distances(points, pairs), gradients)
    if found is None:
        return None, None
    rng, ranks, others = np.random.default_rng(1), scipy.stats.rankdata(gradients), []
    for _ in range(PERMUTATIONS):
        other = scipy.stats.rankdata(distances(points[_shuffled(sources, rng)], pairs))
        others.append(np.corrcoef(other, ranks)[0, 1] if np.ptp(other) else 0.0)
    reached = sum(other >= found - 1e-12 for other in others)
    return found, (1 + reached) / (1 + PERMUTATIONS)


def explained(
    vectors: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], sources: Int[np.ndarray, " n"]
) -> dict[str, Any]:
    """The share of the variance within sources that clusters account for, and what chance has.

    By chance is the mean over groups of the same sizes, rows permuted within sources; `p_value` is how likely
    these reach the share.
    """
    vectors = vectors.astype(np.float64)
    within_sources = _spread(vectors, sources)
    if within_sources <= 0:
        return {"share": None, "by_chance": None, "p_value": None}
    rng = np.random.default_rng(2)
    share = 1 - _spread(vectors, labels) / within_sources
    others = np.array(
        [1 - _spread(vectors[_shuffled(sources, rng)], labels) / within_sources for _ in range(PERMUTATIONS)]
    )
    reached = int((others >= share - 1e-12).sum())
    return {
        "share": float(share),
        "by_chance": float(others.mean()),
        "p_value": (1 + reached) / (1 + PERMUTATIONS),
    }


def curve(x: Float[np.ndarray, " m"], y: Float[np.ndarray, " m"]) -> dict[str, list[float]]:
    """The mean of y where x is smallest, and so on in bins of as many pairs each."""
    order = np.argsort(x, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    return {
        "trajectories": [float(x[part].mean()) for part in bins],
        "gradients": [float(y[part].mean()) for part in bins],
    }


def _spread(vectors: Float[np.ndarray, "n d"], groups: Int[np.ndarray, " n"]) -> float:
    """The sum of squared distances from the means of groups."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    counts = np.diff(np.append(starts, len(groups)))
    return float(np.square(vectors).sum() - (np.square(sums).sum(1) / counts).sum())


def _shuffled(sources: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """A random permutation of rows that leaves each in its source."""
    order = np.lexsort((rng.random(len(sources)), sources))
    found = np.empty(len(sources), np.int64)
    found[np.argsort(sources, kind="stable")] = order
    return found
