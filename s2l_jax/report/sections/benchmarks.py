"""What each model scored on each benchmark, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.table import NOT_MEASURED

_DOMAINS = {"in": ("in_domain", "in-domain mean"), "out": ("out_of_domain", "out-of-domain mean")}
_METRICS = {
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bertscore": "BERTScore",
}

Table = tuple[list[str], list[list[str]]]


@report_section("Benchmarks", place=20)
def benchmarks(section: Section, found: Findings) -> None:
    """A table of runs that were evaluated on benchmarks."""
    section.intro = (
        "In percent, with 95 % intervals: Wilson's for accuracies, each benchmark weighing the same in "
        "means; bootstrap over rows for metrics of summaries."
    )
    section.header, section.rows = benchmark_table(found.part("evaluations"))


@report_section("Benchmarks by level and type", place=30)
def benchmark_parts(section: Section, found: Findings) -> None:
    """A table of the benchmarks' parts."""
    section.intro = "Accuracy in percent, with 95 % intervals."
    section.header, section.rows = part_table(found.part("evaluations"))
    section.scroll = True


def benchmark_table(evaluations: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows: a row for each model; a column for each benchmark with accuracies, and for means.

    In-domain benchmarks come first, then those out of it, then others. Cells are "accuracy [95 % interval]"
    in percent, or metrics of summaries, of each benchmark by itself. No rows where that would say no more
    than the results table, as of a single benchmark of neither domain without metrics.
    """
    columns: list[tuple[str, tuple[str, ...]]] = []
    found = [b for e in evaluations.values() for b in (e.get("benchmarks") or {}).items()]
    domains = {name: benchmark.get("domain", "") for name, benchmark in found if "accuracy" in benchmark}
    for domain, (average, title) in _DOMAINS.items():
        if inside := [name for name in domains if domains[name] == domain]:
            columns += [(name, ("benchmarks", name)) for name in inside]
            columns.append((title, ("averages", average)))
    if columns or len(domains) > 1:
        columns += [(name, ("benchmarks", name)) for name in domains if domains[name] not in _DOMAINS]
        if len(domains) > 1:
            columns.append(("mean of all", ("overall",)))
    one = len(dict(found)) == 1
    metrics = {
        (name, kind): title if one else f"{name} {title}"
        for name in dict(found)
        for kind, title in _METRICS.items()
        if any(name == other and kind in (b.get("metrics") or {}) for other, b in found)
    }
    header = ["model", *(title for title, _ in columns), *metrics.values()]
    rows = []
    for model, evaluation in evaluations.items():
        cells = [_percent(_at(evaluation, path)) for _, path in columns]
        scores = (_at(evaluation, ("benchmarks", name, "metrics", kind)) for name, kind in metrics)
        rows.append([model, *cells, *(_cell(each, "score", 1.0) for each in scores)])
    return (header, rows) if len(header) > 1 else ([], [])


def part_table(evaluations: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows: a row for each level and type of a benchmark, a column for each model."""
    parts: dict[tuple[str, str, str], int] = {}
    for evaluation in evaluations.values():
        for name, benchmark in (evaluation.get("benchmarks") or {}).items():
            for kind in ("levels", "types"):
                for part, scores in (benchmark.get(kind) or {}).items():
                    parts[(name, kind, part)] = scores.get("num_examples", 0)
    header = ["benchmark", "part", "rows", *evaluations]
    rows = [
        [
            key[0],
            key[2],
            f"{count:,}",
            *(_percent(_at(evaluation, ("benchmarks", *key))) for evaluation in evaluations.values()),
        ]
        for key, count in parts.items()
    ]
    return header, rows


def _at(values: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any] | None:
    found: Any = values
    for name in path:
        found = (found or {}).get(name)
    return found


def _percent(scores: Mapping[str, Any] | None) -> str:
    return _cell(scores, "accuracy", 100.0)


def _cell(scores: Mapping[str, Any] | None, key: str, scale: float) -> str:
    if not scores or (value := finite_number(scores.get(key))) is None:
        return NOT_MEASURED
    text = f"{scale * value:.1f}"
    if interval := scores.get("interval"):
        low, high = (scale * limit for limit in interval)
        text += f" [{low:.1f}–{high:.1f}]"
    return text
