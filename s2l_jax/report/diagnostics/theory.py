"""Whether the claim that the method rests on holds in this run, where `analysis.theory` had it measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from s2l_jax.report.diagnostic import WARNING, Measured, Verdict, diagnostic
from s2l_jax.report.findings import Findings

LIKELY = 0.05  # p value above which chance may be all there is
LITTLE = 0.05  # share of the variance of gradients beyond chance, below which clusters tell little
AS_GOOD = 0.05  # of an error: a smaller difference is none


@diagnostic
def gradient_similarity(found: Findings) -> Iterator[Verdict | Measured]:
    """Judges Theorem 4.1: whether rows of a cluster have like gradients, at each checkpoint of the target."""
    judged = [c for c in _checkpoints(found) if c["explained"]["share"] is not None]
    if not judged:
        return
    holding = [checkpoint for checkpoint in judged if _holds(checkpoint)]
    strong = [c for c in holding if c["explained"]["share"] - c["explained"]["by_chance"] >= LITTLE]
    answer = "yes" if len(holding) == len(judged) else "in part" if holding else "no"
    answer = f"{answer}: at {len(holding)} of {len(judged)} checkpoints"
    answer += ", though hardly more than by chance" if holding and not strong else ""
    shares = f"{_share(judged, 'explained')}; of directions {_share(judged, 'explained_directions')}"
    yield Measured("rows of a cluster have like gradients in the target (Theorem 4.1)", answer)
    yield Measured("variance of gradients within sources that clusters account for", shares)
    if not strong:
        yield Verdict(
            WARNING,
            "Clusters tell little of gradients",
            f"Theorem 4.1 in this run: {answer}. Of the variance of gradients within sources, clusters have "
            f"{shares}.",
            "Measure losses earlier and more often (trajectories.every), or try another proxy.",
        )


def _share(checkpoints: Sequence[Mapping[str, Any]], name: str) -> str:
    share, by_chance = (
        100 * float(np.mean([c[name][key] or 0.0 for c in checkpoints])) for key in ("share", "by_chance")
    )
    return f"{share:.0f} % (by chance {by_chance:.0f} %)"


def _holds(checkpoint: Mapping[str, Any]) -> bool:
    """Whether gradients are alike beyond chance, both of pairs with like losses and of clusters."""
    correlation, p_values = checkpoint["rank_correlation"], (checkpoint["explained"], checkpoint)
    return correlation is not None and correlation > 0 and all(p["p_value"] <= LIKELY for p in p_values)


@diagnostic
def subset_gradient(found: Findings) -> Iterator[Verdict | Measured]:
    """Judges Corollary 4.2: whether weighting by clusters brings a subset's gradient near that of all rows.

    The control is a random subset with as many rows of each source, weighted by sources in the same way.
    """
    errors = [c["errors"] for c in _checkpoints(found) if c["errors"]["random"]]
    if not errors:
        return
    weighted, plain = (_ratios(errors, name) for name in ("by_cluster_weighted", "by_cluster_plain"))
    answer = "yes" if max(weighted) < 1 - AS_GOOD else "no" if min(weighted) > 1 - AS_GOOD else "in part"
    said = ", ".join(f"{ratio:.2f}" for ratio in weighted)
    yield Measured(
        "weighted subsets have a gradient nearer to that of all rows than random ones (Corollary 4.2)",
        f"{answer}: errors of {said} times theirs; without weights {', '.join(f'{r:.2f}' for r in plain)}",
    )
    if min(weighted) > 1 + AS_GOOD:
        yield Verdict(
            WARNING,
            "Random rows stand for the pool better than the subset does",
            f"Weighted by |C_k| / R_k, the mean gradient of subsets from the clusters is {said} times as far "
            "from that of all rows as that of random rows of the same sources, weighted by these.",
            "Judge the subset by its target: it is not the small copy of the pool of Corollary 4.2.",
        )


def _checkpoints(found: Findings) -> Sequence[Mapping[str, Any]]:
    return found.part("theory").get("checkpoints") or []


def _ratios(errors: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The errors of a kind of draw, of those of random rows by source."""
    return [each[name]["mean"] / max(each["by_source_weighted"]["mean"], 1e-12) for each in errors]
