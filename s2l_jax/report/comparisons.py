"""Every method against a baseline: paired differences with intervals, and each in a sentence."""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from s2l_jax.evaluation.paired import PairedDifference, holm, paired_difference
from s2l_jax.report.runs import RunGroup, RunResult

Row = tuple[str, int]  # a benchmark, and the id of one of its rows
Scores = Mapping[Row, float]  # of a model on each evaluation row

ALPHA = 0.05
METHOD = (
    "paired by seed and evaluation row; 95 % intervals by Student's t over replicates and over rows, which "
    "both vary (with one replicate over rows alone); p values by Holm's method for each measure"
)


def rows_alike(rows: Sequence[Row]) -> Float[np.ndarray, " m"]:
    """Weights with which every row counts the same in a mean over rows."""
    return np.ones(len(rows))


def benchmarks_alike(rows: Sequence[Row]) -> Float[np.ndarray, " m"]:
    """Weights with which every benchmark counts the same in a mean over rows, as in the overall accuracy."""
    sizes = collections.Counter(benchmark for benchmark, _ in rows)
    return np.array([len(rows) / (len(sizes) * sizes[benchmark]) for benchmark, _ in rows])


Weights = Callable[[Sequence[Row]], Float[np.ndarray, " m"]]  # of rows, whose mean is 1


@dataclasses.dataclass(frozen=True)
class Measure:
    """What is compared: its name in results.json, how rows count in it, and how a difference is said."""

    name: str
    of: Callable[[RunResult], float | None]
    weights: Weights
    scale: float
    unit: str

    def amount(self, value: float, sign: str = "") -> str:
        """A difference as text."""
        return f"{self.scale * value:{sign}.{1 if self.scale > 1 else 3}f}"


MEASURES = (
    Measure("accuracy", lambda run: run.accuracy, benchmarks_alike, 100.0, " points"),
    Measure("heldout_loss", lambda run: run.heldout_loss, rows_alike, 1.0, ""),
)


def compare(
    groups: Sequence[RunGroup],
    scores: Callable[..., Scores],
    baseline: Collection[str],
    name: str = "the baseline",
) -> dict[str, Any]:
    """What results.json says of differences between methods: for every measure and group its comparison.

    A group is compared with the baseline at the budget that it was asked for, in the same unit; where there
    is none, at the one nearest in rows by ratio (all rows: the largest); the untuned target at the largest.

    Args:
      groups: of the results.
      scores: (run, measure=its name) -> the run's; empty where it has none.
      baseline: names of the runs that the others are compared with, of any budget and seed.
      name: of the baseline, in sentences.
    """
    bases = [group for group in groups if any(run.name in baseline for run in group.runs)]
    found: dict[str, Any] = {"baseline": name, "method": METHOD}
    for measure in MEASURES:
        compared = []
        for group in groups:
            entry = _described(group, measure)
            base = _base_of(group, bases)
            if entry and base is not None:
                of_run = functools.partial(_of_measured, scores, measure)
                if (difference := paired(group, base, of_run, of_run, measure.weights)) is not None:
                    entry["difference"] = _as_json(difference) | {"baseline_budget": base.budget}
            if entry:
                compared.append(entry)
        _correct([entry["difference"] for entry in compared if "difference" in entry])
        for entry in compared:
            if "difference" in entry:
                entry["in_words"] = _in_words(entry, measure, name)
        if compared:
            found[measure.name] = compared
    return found


def _of_measured(scores: Callable[..., Scores], measure: Measure, run: RunResult) -> Scores:
    """Scores of a run that has the measure: not of one that lacks a benchmark, which has no mean either."""
    return {} if measure.of(run) is None else scores(run, measure=measure.name)


def _described(group: RunGroup, measure: Measure) -> dict[str, Any] | None:
    statistic = group.statistic(measure.of)
    if statistic is None:
        return None
    values = [value for run in group.runs if (value := measure.of(run)) is not None]
    return {
        "label": group.label,
        "budget": group.budget,
        "runs": [run.name for run in group.runs],
        "mean": statistic.mean,
        "standard_deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "num_replicates": statistic.count,
    }


def _base_of(group: RunGroup, bases: Sequence[RunGroup]) -> RunGroup | None:
    if group in bases or not bases:
        return None
    budget = group.budget
    if budget is None:
        return max(bases, key=lambda base: base.budget or 0)
    if same := [base for base in bases if base.asked == group.asked]:
        return same[0]
    return min(bases, key=lambda base: abs(math.log((base.budget or 1) / budget)))


def paired(
    group: RunGroup,
    base: RunGroup,
    scores: Callable[[RunResult], Scores],
    base_scores: Callable[[RunResult], Scores],
    weights: Weights,
) -> PairedDifference | None:
    """The difference of two groups, paired by seed and evaluation row; None where they share neither.

    Rows count by the weights of those that all have, so that models that were asked other benchmarks, too,
    are compared on what they were asked alike. Weighted rows are taken for draws of one kind: what benchmarks
    or sources differ in counts as chance, so that intervals are wider than they would have to be.
    """
    pairs = [(scores(run), base_scores(other)) for run, other in _replicates(group, base)]
    pairs = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
    rows = (
        [key for key in pairs[0][0] if all(key in side for pair in pairs for side in pair)] if pairs else []
    )
    if not rows:
        return None
    differences = np.array([[ours[key] - theirs[key] for key in rows] for ours, theirs in pairs])
    return paired_difference(differences * weights(rows))


def _replicates(group: RunGroup, base: RunGroup) -> list[tuple[RunResult, RunResult]]:
    """The pairs to compare: of one seed; a model of none (the untuned) with every run of the baseline."""
    by_seed = {other.selection.get("seed"): other for other in base.runs}
    if len(group.runs) == 1 and "seed" not in group.runs[0].selection:
        return [(group.runs[0], other) for other in base.runs]
    seeds = [(run, run.selection.get("seed")) for run in group.runs]
    return [(run, by_seed[seed]) for run, seed in seeds if seed in by_seed]


def _as_json(found: PairedDifference) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "interval": list(found.interval),
        "p_value": found.p_value,
        "num_replicates": found.num_replicates,
        "num_rows": found.num_rows,
    }


def _correct(differences: Sequence[dict[str, Any]]) -> None:
    corrected = holm([difference["p_value"] for difference in differences])
    for difference, p_value in zip(differences, corrected, strict=True):
        difference["corrected_p_value"] = p_value


def _in_words(entry: Mapping[str, Any], measure: Measure, baseline: str) -> str:
    found = entry["difference"]
    if found["baseline_budget"] not in (None, entry["budget"]):
        baseline = f"{baseline} {found['baseline_budget']:,}"
    low, high = found["interval"]
    n = found["num_replicates"]
    interval = f"95 % interval {measure.amount(low, '+')} to {measure.amount(high, '+')}"
    alone = "; one replicate, so the luck of its seed is not in the interval" if n == 1 else ""
    if found["corrected_p_value"] >= ALPHA:
        mean = measure.amount(found["mean"], "+")
        return f"within noise of {baseline} at n = {n}: {mean}{measure.unit} ({interval}{alone})"
    where = "above" if found["mean"] > 0 else "below"
    size = measure.amount(abs(found["mean"]))
    p_value = f"p = {found['corrected_p_value']:.2g} after Holm's correction"
    return f"{size}{measure.unit} {where} {baseline} at n = {n} ({interval}, {p_value}{alone})"


def comparison_lines(results: Mapping[str, Any]) -> list[str]:
    """A line for each comparison of the accuracy, or where it was not measured of the held-out loss."""
    comparisons = results.get("comparisons") or {}
    compared: list[Any] = next((comparisons[m.name] for m in MEASURES if comparisons.get(m.name)), [])
    named = [(e["label"] if e["budget"] is None else f"{e['label']} {e['budget']:,}", e) for e in compared]
    return [f"{name}: {entry['in_words']}" for name, entry in named if "in_words" in entry]


def row_scores(benchmarks: Mapping[str, Sequence[tuple[int, float | None]]]) -> dict[Row, float]:
    """Scores of rows, of those that have one, from the (row id, score) of each benchmark."""
    return {
        (name, row): score for name, rows in benchmarks.items() for row, score in rows if score is not None
    }
