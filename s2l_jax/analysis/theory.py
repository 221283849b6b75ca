"""Theorem 4.1 and Corollary 4.2 of S2L (arXiv 2403.07384), as far as they can be measured."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from s2l_jax.analysis.similarity import (
    Pairs,
    correlation_test,
    curve,
    distances,
    explained,
    rank_correlation,
    unit,
)
from s2l_jax.analysis.subset_error import subset_errors


@dataclasses.dataclass(frozen=True)
class Measurements:
    """What was measured of n rows, which are whole clusters.

    Attributes:
      trajectories: their losses by the proxy, that were clustered.
      target_losses: by the target at as many points of its own training, the same shares of it.
      gradients: of their losses in the target, maybe projected, by its step.
      labels: their clusters.
      sources: numbers of their sources; all alike where there are none.
      taken: whether the subset has them.
    """

    trajectories: Float[np.ndarray, "n t"]
    target_losses: Float[np.ndarray, "n t"]
    gradients: Mapping[int, Float[np.ndarray, "n p"]]
    labels: Int[np.ndarray, " n"]
    sources: Int[np.ndarray, " n"]
    taken: Bool[np.ndarray, " n"]


def measure_theory(found: Measurements) -> dict[str, Any]:
    """What results.json says under "theory": its schema has a line on each number."""
    pairs = Pairs.drawn(found.labels, found.sources)
    return {
        "num_rows": len(found.labels),
        "num_clusters": len(np.unique(found.labels)),
        "num_taken": int(found.taken.sum()),
        "constants": _constants(found, pairs),
        "checkpoints": [
            {"step": step, **_at_checkpoint(found, gradients, pairs)}
            for step, gradients in sorted(found.gradients.items())
        ],
    }


def _constants(found: Measurements, pairs: Pairs) -> dict[str, Any]:
    """What the theorem's bound grows with: a cluster's width, and how far target and proxy are apart."""
    width = distances(found.trajectories, pairs.within)
    apart = np.linalg.norm(found.trajectories.astype(np.float64) - found.target_losses, axis=1)
    by_proxy, by_target = (distances(x, pairs.of_source) for x in (found.trajectories, found.target_losses))
    return {
        "epsilon": _mean_and_largest(width),
        "delta": _mean_and_largest(apart),
        "between_clusters": _mean_and_largest(distances(found.trajectories, pairs.between)),
        "proxy_target_rank_correlation": rank_correlation(by_proxy, by_target),
    }


def _at_checkpoint(found: Measurements, gradients: Float[np.ndarray, "n p"], pairs: Pairs) -> dict[str, Any]:
    directions, points = unit(gradients), found.trajectories
    kinds = {"within": pairs.within, "between": pairs.between, "sources": pairs.sources}
    apart = distances(gradients, pairs.of_source)
    own = distances(found.target_losses, pairs.of_source)
    correlation, p_value = correlation_test(points, apart, pairs.of_source, found.sources)
    return {
        "largest_gradient": float(np.linalg.norm(gradients, axis=1).max()),
        "distances": {name: _described(points, gradients, directions, some) for name, some in kinds.items()},
        "rank_correlation": correlation,
        "p_value": p_value,
        "rank_correlation_of_target": rank_correlation(own, apart),
        "explained": explained(gradients, found.labels, found.sources),
        "explained_directions": explained(directions, found.labels, found.sources),
        "errors": subset_errors(gradients, found.taken, found.labels, found.sources),
        "curve": curve(distances(points, pairs.of_source), apart) if len(apart) else None,
    }


def _described(points: Any, gradients: Any, directions: Any, pairs: Any) -> dict[str, Any]:
    if not pairs.shape[1]:
        return {"num_pairs": 0}
    apart = distances(gradients, pairs)
    return {
        "num_pairs": pairs.shape[1],
        "trajectories": float(distances(points, pairs).mean()),
        "gradients": float(apart.mean()),
        "largest": float(apart.max()),
        # Of unit vectors: 1 - d^2 / 2.
        "cosine": float(1 - np.square(distances(directions, pairs)).mean() / 2),
    }


def _mean_and_largest(values: Float[np.ndarray, " m"]) -> dict[str, float] | None:
    return {"mean": float(values.mean()), "largest": float(values.max())} if len(values) else None
