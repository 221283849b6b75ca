"""What benchmarks/results has of a study: its runs, and how each did on every evaluation row."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from store_study import RESULTS

from s2l_jax.config.replicates import entry_of
from s2l_jax.report.comparisons import MEASURES, Measure, Row, row_scores
from s2l_jax.report.load import load_results
from s2l_jax.report.runs import FULL, RunGroup, RunResult, group_runs

NONE, ALL = "untuned", "all rows"  # columns beside those of budgets


class Judged(NamedTuple):
    """A measure, of one benchmark or with "" of all; sources count as asked, or as the pool has them."""

    measure: Measure
    benchmark: str = ""
    as_pool: bool = False

    @classmethod
    def by(cls, name: str) -> "Judged":
        """That of "accuracy", "accuracy@BENCHMARK" or either with "/as_pool" after it."""
        rest, _, weighted = name.partition("/")
        own, _, benchmark = rest.partition("@")
        measures = {measure.name: measure for measure in MEASURES}
        if own not in measures or weighted not in ("", "as_pool"):
            raise SystemExit(
                f"{name}: a measure is one of {', '.join(measures)}, after which is /as_pool at most"
            )
        return cls(measures[own], benchmark, bool(weighted))


@dataclasses.dataclass(frozen=True)
class Study:
    """What is stored of a study."""

    name: str

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """The content of its results.json."""
        return load_results(RESULTS / self.name / "results.json").content

    @functools.cached_property
    def groups(self) -> list[RunGroup]:
        """Its runs, replicates together, by name and then by budget."""
        return sorted(group_runs(self.results), key=lambda group: (name_of(group), group.budget or 0))

    @functools.cached_property
    def _scores(self) -> Mapping[str, np.ndarray]:
        return dict(np.load(RESULTS / self.name / "scores.npz"))

    @functools.cached_property
    def _clusters(self) -> Mapping[str, np.ndarray]:
        return dict(np.load(RESULTS / self.name / "clusters.npz"))

    def rows(self, run: RunResult) -> np.ndarray:
        """The rows of the pool that a run chose."""
        return self._clusters[f"rows/{run.name}"]

    @functools.cached_property
    def benchmarks(self) -> list[str]:
        """Those that its models were asked."""
        return [key.removesuffix("/ids") for key in self._scores if key.endswith("/ids")]

    @functools.cached_property
    def sources(self) -> dict[Row, str]:
        """The source of each evaluation row, by what `scores` are by."""
        return {
            (part, row): source
            for part in self.benchmarks
            for row, source in zip(
                self._scores[f"{part}/ids"].tolist(), self._scores[f"{part}/sources"].tolist(), strict=True
            )
        }

    def value(self, run: RunResult, judged: Judged) -> float | None:
        """Of a run's model."""
        if not (judged.benchmark or judged.as_pool):
            return judged.measure.of(run)
        scores = self.scores(run, judged)
        return float(np.mean([*scores.values()] * self.weights([*scores], judged))) if scores else None

    def scores(self, run: RunResult, judged: Judged) -> dict[Row, float]:
        """Of a run's model on every evaluation row."""
        kind, rows = "right" if judged.measure.name == "accuracy" else "loss", {}
        for benchmark in [judged.benchmark] if judged.benchmark else self.benchmarks:
            if f"{benchmark}/{kind}/{run.name}" not in self._scores:
                continue
            ids = self._scores[f"{benchmark}/ids"].tolist()
            values = self._scores[f"{benchmark}/{kind}/{run.name}"].tolist()
            known = [None if np.isnan(value) else value for value in values]
            rows[benchmark] = list(zip(ids, known, strict=True))
        return row_scores(rows)

    def weights(self, rows: Sequence[Row], judged: Judged) -> np.ndarray:
        """How rows count in a mean, which is `value` of all of a model's."""
        if not judged.as_pool:
            return judged.measure.weights(rows)
        asked = collections.Counter(self.sources[row] for row in rows)
        sizes: dict[str, int] = self.results["pool"]["sources"]
        if others := sorted(set(asked) - set(sizes)):
            raise SystemExit(
                f"{self.name}: no rows of {', '.join(others)} in the pool to count as; name a benchmark"
            )
        counted = np.array([sizes[self.sources[row]] / asked[self.sources[row]] for row in rows])
        return counted / counted.mean()

    def named(self, name: str) -> list[RunGroup]:
        """The groups of an entry of selection.runs, by budget."""
        return [group for group in self.groups if name_of(group) == name]

    @functools.cached_property
    def columns(self) -> dict[int, str]:
        """The budgets of the study's runs by name, in rows, and the share of the pool that each is."""
        size = self.results["pool"]["num_examples"]
        rows = {g.budget for g in self.groups if g.budget and g.asked[1] == "examples" and g.method != FULL}
        return {budget: f"{100 * budget / size:.3g} %" for budget in sorted(rows)}

    def column(self, group: RunGroup) -> str:
        """Where a group stands: under its budget, or the nearest for one in tokens."""
        rows = group.budget
        if rows is None or group.method == FULL:
            return NONE if rows is None else ALL
        return self.columns[min(self.columns, key=lambda budget: abs(np.log(budget / rows)))]

    def line(self, cells: Mapping[str, str]) -> list[str]:
        """The cells of one selection, in the order of columns."""
        return [cells.get(column, "-") for column in (NONE, *self.columns.values(), ALL)]


@functools.cache
def study_of(name: str) -> Study:
    """The stored study of a name."""
    return Study(name)


def name_of(group: RunGroup) -> str:
    """The entry of selection.runs that a group's runs are of."""
    return entry_of(group.runs[0].name)
