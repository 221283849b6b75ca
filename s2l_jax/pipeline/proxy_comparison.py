"""What several proxies have in common: their losses, the clusters and subsets made with each."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from s2l_jax.analysis.similarity import rank_correlation
from s2l_jax.clustering.agreement import adjusted_rand_within
from s2l_jax.config.inputs import OWN, Inputs
from s2l_jax.data.order import priorities
from s2l_jax.report.runs import part_results
from s2l_jax.selection import Selection
from s2l_jax.selection.result import jaccard

_DISTANCES = 20_000  # pairs of rows whose distances are compared
_FEWEST = 20  # rows of a source whose losses are ranked


@dataclasses.dataclass(frozen=True)
class Losses:
    """Trajectories of some rows of the pool; where a row was not measured it is not in `rows`."""

    losses: Float[np.ndarray, "s t"]
    rows: Int[np.ndarray, " s"]


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A subset that was made with a proxy."""

    name: str
    inputs: Inputs
    chosen: Selection

    @property
    def proxy(self) -> str:
        """What its proxy is called."""
        return self.inputs.proxy or OWN

    @property
    def kind(self) -> str:
        """All that it has in common with the runs it is compared with."""
        options = {name: value for name, value in self.chosen.options.items() if name != "proxy"}
        return json.dumps([self.chosen.method, self.chosen.budget, self.chosen.unit, options], default=str)


def compare_proxies(
    runs: Sequence[ComparedRun],
    losses: Mapping[Inputs, Losses],
    results: Mapping[str, Any],
    parts: Mapping[Inputs, str],
) -> dict[str, Any]:
    """What results.json says of the proxies of some runs; nothing where all go by the same.

    Runs are compared that differ in their proxy alone; and for how much of that is chance, those of one proxy
    that differ in their seed alone.

    Args:
      runs: that go by a proxy.
      losses: of the proxies.
      results: of the workdir.
      parts: where in the results each proxy's are.
    """
    names = list(dict.fromkeys(run.proxy for run in runs))
    if len(names) < 2:
        return {}
    described = []
    for name in names:
        own = [run for run in runs if run.proxy == name]
        made = part_results(results, parts[own[0].inputs])
        fields = ("parameters", "training_flops", "sweep_flops")
        described.append(
            {"name": name, **{f: made.get(f) for f in fields}, "runs": [run.name for run in own]}
        )
    return {"proxy_comparison": {"proxies": described, "pairs": list(_pairs(names, runs, losses))}}


def _pairs(
    names: Sequence[str], runs: Sequence[ComparedRun], losses: Mapping[Inputs, Losses]
) -> Iterator[dict[str, Any]]:
    known: dict[tuple[Inputs, Inputs], dict[str, Any] | None] = {}
    for a, b in itertools.combinations_with_replacement(names, 2):
        pairs = [pair for pair in itertools.combinations(runs, 2) if _belong(*pair, a, b)]
        pairs = [pair if pair[0].proxy == a else pair[::-1] for pair in pairs]
        if not pairs:
            continue
        for one, other in pairs:
            if (key := (one.inputs, other.inputs)) not in known:
                x, y = losses.get(one.inputs), losses.get(other.inputs)
                known[key] = None
                if x is not None and y is not None and x is not y:
                    known[key] = rank_correlations(x, y, one.chosen.sources)
        found = [known[one.inputs, other.inputs] for one, other in pairs]
        yield {
            "proxies": [a, b],
            "runs": [[one.name, other.name] for one, other in pairs],
            **_mean([_overlap(one.chosen, other.chosen) for one, other in pairs]),
            "trajectories": _mean([each for each in found if each is not None]),
        }


def _belong(one: ComparedRun, other: ComparedRun, a: str, b: str) -> bool:
    same_seed = one.chosen.seed == other.chosen.seed
    is_pair = {one.proxy, other.proxy} == {a, b} and (one.proxy == other.proxy) == (a == b)
    return is_pair and one.kind == other.kind and same_seed == (a != b)


def _overlap(one: Selection, other: Selection) -> dict[str, float | None]:
    by_chance = [jaccard(a.indices, drawn_alike(b)) for a, b in ((one, other), (other, one))]
    by_source = one.cluster_sources is not None and other.cluster_sources is not None
    return {
        "jaccard": jaccard(one.indices, other.indices),
        "jaccard_by_chance": float(np.mean(by_chance)),
        "adjusted_rand": adjusted_rand_within(one.labels, other.labels, one.sources if by_source else None),
    }


def drawn_alike(chosen: Selection) -> Int[np.ndarray, " b"]:
    """A random subset by the seed of another: as many rows of each source, drawn by the same priorities."""
    priority, taken = priorities(chosen.ids, chosen.seed), np.zeros(len(chosen.ids), bool)
    taken[chosen.indices] = True
    found = []
    for source in _sources(chosen.sources, len(taken)):
        rows = np.flatnonzero(source & (chosen.labels >= 0))
        found.append(rows[np.argsort(priority[rows], kind="stable")][: taken[rows].sum()])
    return np.sort(np.concatenate(found))


def rank_correlations(one: Losses, other: Losses, sources: np.ndarray | None) -> dict[str, Any]:
    """Spearman's rank correlations of what two proxies measured of the same rows.

    Of the mean loss, of the fall from the first checkpoint to the last, and of distances between the
    trajectories of two rows, which need not have as many columns. Each is a mean over the sources in which
    both vary, by their rows; None where there is none.
    """
    rows, *places = np.intersect1d(one.rows, other.rows, return_indices=True)
    sides = [np.asarray(x.losses[at], np.float64) for x, at in zip((one, other), places, strict=True)]
    found: dict[str, list[tuple[float, int]]] = {"mean_loss": [], "fall": [], "distances": []}
    sizes, rng = [], np.random.default_rng(0)
    for source in _sources(None if sources is None else np.asarray(sources)[rows], len(rows)):
        own = [side[source] for side in sides]
        if (size := len(own[0])) < _FEWEST:
            continue
        sizes.append(size)
        first, second = rng.integers(0, size, (2, min(_DISTANCES, size**2)))
        measures = {
            "mean_loss": [side.mean(1) for side in own],
            "fall": [side[:, 0] - side[:, -1] for side in own],
            "distances": [np.linalg.norm(side[first] - side[second], axis=1) for side in own],
        }
        for name, (x, y) in measures.items():
            if (correlation := rank_correlation(x, y)) is not None:
                found[name].append((correlation, size))
    means = {
        name: float(np.average([r for r, _ in each], weights=[n for _, n in each])) if each else None
        for name, each in found.items()
    }
    return {"num_rows": sum(sizes), **means}


def _sources(sources: np.ndarray | None, size: int) -> list[Bool[np.ndarray, " n"]]:
    """For each source which rows are of it; all of one where none are known."""
    if sources is None:
        return [np.ones(size, bool)]
    names, codes = np.unique(sources, return_inverse=True)
    return [codes == code for code in range(len(names))]


def _mean(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each number where it is known."""
    means = {}
    for name in found[0] if found else ():
        values = [each[name] for each in found if each[name] is not None]
        means[name] = type(values[0])(np.mean(values)) if values else None
    return means
