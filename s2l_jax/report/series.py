"""Ablations within a run: groups of its runs that differ in one option of their method, and what that did."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s2l_jax.evaluation.intervals import Interval
from s2l_jax.evaluation.paired import PairedDifference, holm, paired_difference
from s2l_jax.report.comparisons import ALPHA, Measure
from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import RunGroup, Statistic

FEWEST = 3  # values that make a series

_TITLES = {
    "num_clusters": "number of clusters",
    "every": "every n-th checkpoint",
    "num_checkpoints": "checkpoints used",
}
_WITHOUT = {"proxy": "the run's own"}  # what the value of an option is called where a run has none


@dataclasses.dataclass(frozen=True)
class Series:
    """Groups of one method and budget that differ in one option alone, each in its value.

    Attributes:
      option: its name.
      name: in words, with method and budget where several series have the option.
      values: that the groups have, rising where they are numbers, else as the runs are named.
      groups: one for each value.
      reference: place of the value that the others are compared with, that of the run named first.
    """

    option: str
    name: str
    values: tuple[Any, ...]
    groups: tuple[RunGroup, ...]
    reference: int

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers."""
        return all(isinstance(value, (int, float)) for value in self.values)

    def others(self) -> list[tuple[Any, RunGroup]]:
        """All values but the reference, with their groups."""
        pairs = list(zip(self.values, self.groups, strict=True))
        return [pair for place, pair in enumerate(pairs) if place != self.reference]


def find_series(found: Findings) -> list[Series]:
    """Every option of which groups that differ in nothing else have at least three values."""
    options = [_options(group) for group in found.groups]
    alike: dict[tuple[str, int | None, str, str], dict[Any, list[RunGroup]]] = {}
    for own, group in zip(options, found.groups, strict=True):
        of_method = [o for o, g in zip(options, found.groups, strict=True) if g.method == group.method]
        for option in sorted({name for each in of_method for name in each}):
            rest = json.dumps({n: v for n, v in own.items() if n != option}, sort_keys=True, default=str)
            values = alike.setdefault((group.method, group.budget, option, rest), {})
            values.setdefault(_shown(found, option, own.get(option)), []).append(group)
    series = {key: values for key, values in alike.items() if len(values) >= FEWEST}
    made = []
    for (method, budget, option, _), values in series.items():
        title = _TITLES.get(option, option.replace("_", " "))
        several = sum(other[2] == option for other in series) > 1
        name = f"{title} · {method} {budget or ''}".strip() if several else title
        made.append(_series(found, option, name, values))
    return made


def _options(group: RunGroup) -> Mapping[str, Any]:
    return group.runs[0].selection.get("options") or {}


def _series(found: Findings, option: str, name: str, groups: Mapping[Any, Sequence[RunGroup]]) -> Series:
    named = list(found.part("selections"))

    def since(group: RunGroup) -> int:
        return min(named.index(run.name) for run in group.runs)

    def rank(group: RunGroup) -> tuple[int, int]:
        # Runs alike of one seed are groups of one value, of which that of most seeds tells most.
        return -len(group.runs), since(group)

    shown = {value: min(own, key=rank) for value, own in groups.items()}
    first = {value: min(map(since, own)) for value, own in groups.items()}
    are_numbers = all(isinstance(value, (int, float)) for value in shown)
    order = sorted(shown) if are_numbers else sorted(shown, key=first.__getitem__)
    reference = order.index(min(first, key=first.__getitem__))
    return Series(option, name, tuple(order), tuple(shown[value] for value in order), reference)


def _shown(found: Findings, option: str, value: Any) -> Any:
    if option == "num_checkpoints" and value == 0:
        return len(found.part("trajectories").get("steps") or ())
    if value is None:
        return _WITHOUT.get(option, "none")
    return value if isinstance(value, (int, float)) else str(value)


def spread(group: RunGroup, measure: Measure) -> tuple[Statistic, Interval | None] | None:
    """A measure's statistic over the seeds of a group, and its mean's 95 % interval (Student's t).

    There is no interval with one seed, or where all seeds have the same value.
    """
    statistic = group.statistic(measure.of)
    if statistic is None:
        return None
    values = [value for run in group.runs if (value := measure.of(run)) is not None]
    found = paired_difference(np.array(values)[:, None])
    return statistic, None if found is None else found.interval


def in_words(series: Series, measure: Measure) -> str:
    """A sentence or two: the range over values, and which of them differ from the reference beyond luck."""
    means = {v: s.mean for v, g in zip(series.values, series.groups, strict=True) if (s := _mean(g, measure))}
    if len(means) < 2:
        return ""
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[low] == means[high]:
        return f"{measure.amount(means[low])} at all."
    text = f"{measure.amount(means[low])} at {low} to {measure.amount(means[high])} at {high}."
    reference = series.values[series.reference]
    compared = {v: d for v, g in series.others() if (d := _difference(series, g, measure)) is not None}
    if not compared:
        return f"{text} How much of that is luck is not known: to tell takes seeds whose differences vary."
    if unknown := [str(v) for v, _ in series.others() if v in means and v not in compared]:
        text += f" How much is luck at {', '.join(unknown)} is not known."
    p_values = dict(
        zip(compared, holm([difference.p_value for difference in compared.values()]), strict=True)
    )
    apart = [value for value in compared if p_values[value] < ALPHA]
    n = min(difference.num_replicates for difference in compared.values())
    if not apart:
        most = max(compared, key=lambda value: abs(compared[value].mean))
        none = "None of the others" if unknown else "None"
        return (
            f"{text} {none} is told apart from {reference} by {n} seeds (after Holm's correction): the "
            f"largest difference is {_amount(compared[most], measure)} at {most}."
        )
    said = "; ".join(f"{_amount(compared[value], measure)} at {value}" for value in apart)
    rest = "" if len(apart) == len(compared) else " Others are within what seeds do."
    return f"{text} Against {reference}, over {n} seeds and after Holm's correction: {said}.{rest}"


def _mean(group: RunGroup, measure: Measure) -> Statistic | None:
    return group.statistic(measure.of)


def _amount(difference: PairedDifference, measure: Measure) -> str:
    low, high = (measure.amount(end, "+") for end in difference.interval)
    return f"{measure.amount(difference.mean, '+')}{measure.unit} (95 % interval {low} to {high})"


def _difference(series: Series, group: RunGroup, measure: Measure) -> PairedDifference | None:
    """Of a group from the reference, paired by seed; None without two seeds whose differences vary."""
    sides = []
    for each in (group, series.groups[series.reference]):
        known = {run.selection.get("seed"): measure.of(run) for run in each.runs}
        sides.append({seed: value for seed, value in known.items() if value is not None})
    differences = [sides[0][seed] - sides[1][seed] for seed in sides[0] if seed in sides[1]]
    return paired_difference(np.array(differences)[:, None]) if differences else None


def overlap(found: Findings, one: RunGroup, other: RunGroup) -> float | None:
    """Mean Jaccard index of the subsets of two groups, seed by seed; None where they are not known."""
    pairs = [(a, b) for a in one.runs for b in other.runs if a.selection["seed"] == b.selection["seed"]]
    return _mean_jaccard(found, [(a.name, b.name) for a, b in pairs])


def overlap_of_seeds(found: Findings, group: RunGroup) -> float | None:
    """Mean Jaccard index of the subsets of two seeds of a group; None with one seed."""
    return _mean_jaccard(found, [(a.name, b.name) for a, b in itertools.combinations(group.runs, 2)])


def _mean_jaccard(found: Findings, pairs: Sequence[tuple[str, str]]) -> float | None:
    sides = [[found.taken.get(name) for name in pair] for pair in pairs]
    known = [
        float((a & b).sum() / max((a | b).sum(), 1)) for a, b in sides if a is not None and b is not None
    ]
    return float(np.mean(known)) if known else None
