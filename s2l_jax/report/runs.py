"""Group the runs in a results dictionary so that repeats under other seeds are read as one."""

import collections
import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from s2l_jax.config.replicates import entry_of
from s2l_jax.config.runs import UNTUNED
from s2l_jax.errors import InputError
from s2l_jax.selection import METHODS, Method

FULL = "full"
LONGEST_LABEL = 40  # characters that fit beside a figure
_PARTS = ("selections", "targets", "evaluations")
Key = tuple[str, str, int]  # what a group's runs have alike: method, options as JSON, budget


@dataclasses.dataclass(frozen=True)
class Statistic:
    """Mean, extremes and standard deviation (of a sample; 0 of one) of a number over the runs of a group."""

    mean: float
    low: float
    high: float
    count: int
    deviation: float

    @classmethod
    def of(cls, values: Iterable[Any]) -> "Statistic | None":
        """Summarise the finite numbers in `values`; None when there are none."""
        finite = [number for value in values if (number := finite_number(value)) is not None]
        if not finite:
            return None
        deviation = statistics.stdev(finite) if len(finite) > 1 else 0.0
        return cls(math.fsum(finite) / len(finite), min(finite), max(finite), len(finite), deviation)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One named entry of the results: a selection, the target trained on it, and its scores."""

    name: str
    method: str
    selection: Mapping[str, Any]
    target: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    selection_seconds: float | None
    target_seconds: float | None

    @property
    def accuracy(self) -> float | None:
        """Exact-match accuracy over all evaluation examples, as a fraction."""
        return finite_number((self.evaluation.get("overall") or {}).get("accuracy"))

    @property
    def heldout_loss(self) -> float | None:
        """Mean loss per example of the evaluation set, in nats per token."""
        return finite_number((self.evaluation.get("overall") or {}).get("heldout_loss"))


@dataclasses.dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seed."""

    label: str  # short and unique within the results, without the budget
    method: str
    budget: int | None
    runs: tuple[RunResult, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs, in order, where known."""
        return [run.selection["seed"] for run in self.runs if "seed" in run.selection]

    @property
    def replicates(self) -> str:
        """How many runs means are over, "2 of 3" where one was not judged yet."""
        judged = sum(run.accuracy is not None or run.heldout_loss is not None for run in self.runs)
        count = len(self.runs)
        return f"{judged} of {count}" if 0 < judged < count else str(count)

    @property
    def asked(self) -> tuple[int, str]:
        """The budget as it was asked for, with its unit: examples, or tokens."""
        return (
            (_asked(self.runs[0]), "tokens") if _in_tokens(self.runs[0]) else (self.budget or 0, "examples")
        )

    @property
    def full_label(self) -> str:
        """The label with the budget, for axes that mix budgets."""
        if self.budget is None or self.method == FULL:
            return self.label
        return f"{self.label} · {self.budget:,}"

    def statistic(self, value: Callable[[RunResult], Any]) -> Statistic | None:
        """Summarise `value` of each run."""
        return Statistic.of(value(run) for run in self.runs)


def finite_number(value: Any) -> float | None:
    """`value` as a float, or None when it is missing, no number, NaN or infinite."""
    if value is None or isinstance(value, str):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _known(method: str) -> Method | None:
    """The method of that name; None for one that this machine does not have."""
    try:
        return METHODS.find(method)
    except InputError:
        return None


def clustered_needs(selection: Mapping[str, Any]) -> list[str] | None:
    """What the method of a selection, of these results, needs to cluster, such as "trajectories".

    Empty for a method without clusters, which has no option `num_clusters`; None where it is not known.
    """
    if (method := _known(selection.get("method", ""))) is None:
        return None
    features = (selection.get("options") or {}).get("features", "")
    return sorted(method.by_features(features).needs) if "num_clusters" in method.options else []


def clusters_losses(selection: Mapping[str, Any]) -> bool:
    """Whether a selection, of these results, clusters trajectories, as far as its method is known."""
    needs = clustered_needs(selection)
    return needs is None or "trajectories" in needs


def selection_seconds(results: Mapping[str, Any], name: str) -> float | None:
    """Wall time of choosing a subset: the proxy, its sweeps and features where used, and the choice itself.

    None when no part of it was measured. A proxy is shared by selections that go by it, and each is charged
    all of it, as it would have to pay for it alone; also where it was trained in another workdir.
    """
    timing = results.get("timing", {})
    selection = results.get("selections", {}).get(name, {})
    parts = [*selection.get("used", ()), f"selection/{name}"]
    seconds = [s for part in parts if (s := finite_number(timing.get(part))) is not None]
    return math.fsum(seconds) if seconds else None


def selection_flops(results: Mapping[str, Any], name: str) -> tuple[float, list[str]]:
    """Operations of proxy, sweeps and features that a subset was made with, and the parts that are not known.

    A proxy that was trained elsewhere and left no record of its cost is not known.
    """
    spent, unknown = [], []
    for part in (results.get("selections") or {}).get(name, {}).get("used", ()):
        made = part_results(results, part)
        unknown += [part] if made.get("training_flops", 0) is None else []
        spent += [finite_number(made.get(field)) for field in ("training_flops", "sweep_flops", "flops")]
    return math.fsum(number for number in spent if number is not None), unknown


def part_results(results: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """What the results have of a part that subsets were made with, such as "proxy" or "seed_1/proxy"."""
    if features := (results.get("selection_inputs") or {}).get(part):
        return features
    folder, _, kind = part.rpartition("/")
    inputs = (results.get("proxies") or {}).get(folder, results)
    return inputs.get("proxy" if kind == "proxy" else "trajectories") or {}


def group_runs(results: Mapping[str, Any]) -> list[RunGroup]:
    """One group per (method, options, budget): untuned first, then by budget, the full pool last.

    Runs of one budget in tokens differ in their rows; the group's budget is the mean of these. Of runs that
    have the seed, too, alike the first by name is the replicate, and others are groups by themselves. Within
    a budget the most accurate comes first; groups without an accuracy follow, by held-out loss. Names that
    only trained or were only evaluated (no selection) are groups of their own.
    """
    members: dict[Key, list[RunResult]] = {}
    pool_size = (results.get("pool") or {}).get("num_examples") or 0
    for name in dict.fromkeys(name for part in _PARTS for name in results.get(part) or {}):
        run = _run(results, name)
        key = (run.method, _canonical(_options(run)), _asked(run, pool_size))
        members.setdefault(key, []).append(run)

    labels = _labels(members)
    groups = []
    for key, runs in members.items():
        runs.sort(key=lambda run: (run.selection.get("seed", 0), run.name))
        # Another run of a seed is no replicate: it is a group of its own.
        firsts = {run.selection.get("seed"): run for run in reversed(runs)}
        own = tuple(run for run in runs if firsts[run.selection.get("seed")] is run)
        groups.append(RunGroup(labels[key], key[0], _rows(own, key[2]), own))
        for run in runs:
            if run not in own:
                groups.append(RunGroup(f"{labels[key]}, {run.name}", key[0], _rows([run], key[2]), (run,)))
    return sorted(groups, key=_order)


def _run(results: Mapping[str, Any], name: str) -> RunResult:
    selection, target, evaluation = ((results.get(part) or {}).get(name, {}) for part in _PARTS)
    method = selection.get("method", name)
    seconds = selection_seconds(results, name) if selection else None
    trained = finite_number(results.get("timing", {}).get(f"target/{name}"))
    return RunResult(name, method, selection, target, evaluation, seconds, trained)


def _options(run: RunResult) -> dict[str, Any]:
    """The options that runs of a group have alike; a budget in tokens is one."""
    options = {k: v for k, v in (run.selection.get("options") or {}).items() if k != "seed"}
    return options | ({"budget": "tokens"} if _in_tokens(run) else {})


def _in_tokens(run: RunResult) -> bool:
    return (run.selection.get("asked") or {}).get("unit") == "tokens"


def _asked(run: RunResult, pool_size: int = 0) -> int:
    """The budget that a run was given, in rows or tokens; 0 for none."""
    if (known := _known(run.method)) and known.takes_all:
        return run.selection.get("size") or pool_size
    if _in_tokens(run):
        return run.selection["asked"]["budget"]
    return run.selection.get("budget") or run.selection.get("size") or 0


def _rows(runs: Sequence[RunResult], asked: int) -> int | None:
    if _in_tokens(runs[0]):
        return round(statistics.fmean(run.selection["size"] for run in runs))
    return asked or None


def _canonical(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True, default=str)


def _labels(members: Mapping[Key, Sequence[RunResult]]) -> dict[Key, str]:
    """Name each group, whatever its budget, as the entry of selection.runs that its runs are of.

    Runs alike that are of several entries, or that share one with others, are named by their method and the
    options in which groups of that method differ; where that would be long, by what their names have alike.
    """
    runs: dict[tuple[str, str], list[RunResult]] = {}
    for (method, options, _), own in members.items():
        runs.setdefault((method, options), []).extend(own)
    entries = {kind: {entry_of(r.name) if r.selection else r.name for r in own} for kind, own in runs.items()}
    count = collections.Counter(entry for own in entries.values() for entry in own)
    labels: dict[tuple[str, str], str] = {}
    for kind, (entry, *others) in entries.items():
        if not others and count[entry] == 1:
            labels[kind] = entry
            continue
        text = _told_apart(kind, list(runs))
        labels[kind] = text if len(text) <= LONGEST_LABEL else _shared_name([run.name for run in runs[kind]])
    twice = {label for label, times in collections.Counter(labels.values()).items() if times > 1}
    plain = {kind: _told_apart(kind, list(runs)) for kind, label in labels.items() if label in twice}
    return {key: (labels | plain)[key[:2]] for key in members}


def _told_apart(kind: tuple[str, str], kinds: Sequence[tuple[str, str]]) -> str:
    """A method, with the options of its own that others of the method do not have all alike."""
    method, own = kind[0], json.loads(kind[1])
    all_options = [json.loads(options) for other, options in kinds if other == method]
    names = sorted({name for options in all_options for name in options})
    varied = [n for n in names if len({_canonical({n: o.get(n)}) for o in all_options}) > 1]
    text = ", ".join(f"{name}={_plain(own[name])}" for name in varied if name in own)
    return f"{method} ({text})" if text else method


def _shared_name(names: Sequence[str]) -> str:
    """What the names of one run at several budgets and seeds have before -5pct, -seed1 and the like."""
    columns = zip(*(name.split("-") for name in names), strict=False)
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return "-".join(column[0] for column in alike) or names[0]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _order(group: RunGroup) -> tuple:
    rank = {UNTUNED: 0, FULL: 2}.get(group.method, 1)
    accuracy = group.statistic(lambda run: run.accuracy)
    loss = group.statistic(lambda run: run.heldout_loss)
    return (
        rank,
        group.budget or 0,
        -accuracy.mean if accuracy else math.inf,
        loss.mean if loss else math.inf,
        group.label,
    )
