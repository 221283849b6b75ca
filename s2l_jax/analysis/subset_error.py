"""How far a subset's gradient is from that of all rows, beside random subsets of the same size."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

DRAWS = 200


def subset_errors(
    gradients: Float[np.ndarray, "n p"],
    taken: Bool[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
) -> dict[str, Any]:
    """Errors of mean gradients relative to the length of that of all rows.

    Of the subset as it is, plain and weighted by |C_k| / R_k (the rows of a cluster over those taken of it);
    and over random draws (mean, and the quantiles 0.05 and 0.95) of as many rows from all, from each source
    or from each cluster. Weighted, a row of a source or cluster stands for as many as its weight says.
    None where the mean gradient is 0, or nothing is taken.
    """
    gradients = gradients.astype(np.float64)
    whole, rng = gradients.mean(0), np.random.default_rng(3)
    length, everything = float(np.linalg.norm(whole)), np.zeros(len(taken), np.int64)
    strata = {"by_source": sources, "by_cluster": labels}
    if not length or not taken.any():
        kinds = [f"{name}_{how}" for name in strata for how in ("plain", "weighted")]
        return dict.fromkeys(("subset_plain", "subset_weighted", "random", *kinds))

    def errors(weights: Sequence[Float[np.ndarray, " n"]]) -> Float[np.ndarray, " k"]:
        return np.linalg.norm(np.stack(weights) @ gradients - whole, axis=1) / length

    plain, weighted = errors([taken / taken.sum(), stratum_weights(taken, labels)]).tolist()
    drawn = [draw / draw.sum() for draw in _draws(taken, everything, rng)]
    found = {"subset_plain": plain, "subset_weighted": weighted, "random": _over_draws(errors(drawn))}
    for name, groups in strata.items():
        draws = list(_draws(taken, groups, rng))
        found[f"{name}_plain"] = _over_draws(errors([draw / draw.sum() for draw in draws]))
        found[f"{name}_weighted"] = _over_draws(errors([stratum_weights(draw, groups) for draw in draws]))
    return found


def stratum_weights(taken: Bool[np.ndarray, " n"], strata: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """What each row counts in the mean over all rows: those taken stand for the rows of their stratum."""
    _, codes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    chosen = np.bincount(codes[taken], minlength=len(sizes))
    return np.where(taken, sizes[codes] / np.maximum(chosen[codes], 1), 0.0) / len(taken)


def _draws(
    taken: Bool[np.ndarray, " n"], strata: Int[np.ndarray, " n"], rng: np.random.Generator
) -> Iterator[Bool[np.ndarray, " n"]]:
    """Random subsets with as many rows of each stratum as a subset has."""
    _, codes = np.unique(strata, return_inverse=True)
    counts = np.bincount(codes[taken], minlength=codes.max() + 1)
    starts = np.cumsum(np.bincount(codes)) - np.bincount(codes)
    for _ in range(DRAWS):
        order = np.lexsort((rng.random(len(codes)), codes))
        place = np.arange(len(codes)) - starts[codes[order]]
        drawn = np.zeros(len(codes), bool)
        drawn[order[place < counts[codes[order]]]] = True
        yield drawn


def _over_draws(errors: Float[np.ndarray, " k"]) -> dict[str, float]:
    low, high = np.quantile(errors, (0.05, 0.95))
    return {"mean": float(np.mean(errors)), "low": float(low), "high": float(high)}
