"""Accuracy of every group of runs on each data source."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import RunGroup, Statistic, finite_number
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import SEQUENTIAL, SOURCE_ROWS, heatmap, significant


@report_section("Accuracy by source", place=50)
def accuracy_by_source(section: Section, found: Findings) -> None:
    """Sources against groups of runs."""
    section.intro = (
        "Mean over seeds; the largest sources of the pool on top. Point at a cell for range and counts."
    )
    section.show(source_scores(found.results, found.groups))


def source_scores(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Any:
    """Accuracy per source (rows, largest in the pool first) and group (columns), mean over seeds.

    Falls back to held-out loss when no answers were graded. Sources beyond `SOURCE_ROWS` are
    pooled in one row, weighted by their number of evaluation examples. A text: why there is nothing.
    """
    columns = [g for g in groups if any(run.evaluation.get("sources") for run in g.runs)]
    if not columns:
        return "no target was evaluated by source"
    counts: dict[str, int] = {}
    for group in columns:
        for run in group.runs:
            for source, scores in (run.evaluation.get("sources") or {}).items():
                counts[source] = max(counts.get(source, 0), int(scores.get("num_examples") or 0))
    pool = (results.get("pool") or {}).get("sources") or {}
    ordered = sorted(counts, key=lambda s: (-pool.get(s, 0), -counts[s], s))
    rows = [[source] for source in ordered]
    names = list(ordered)
    if len(ordered) > SOURCE_ROWS:
        rows = [*rows[: SOURCE_ROWS - 1], ordered[SOURCE_ROWS - 1 :]]
        names = [*ordered[: SOURCE_ROWS - 1], f"other ({len(rows[-1])} sources)"]

    metric, scale, form = "accuracy", 100.0, ".0f"
    scores = [[_mean_score(group, row, counts, metric) for group in columns] for row in rows]
    if not any(score for line in scores for score in line):
        metric, scale, form = "heldout_loss", 1.0, ".2f"
        scores = [[_mean_score(group, row, counts, metric) for group in columns] for row in rows]
    cells = [
        {
            "row": name,
            "column": group.full_label,
            "value": significant(score.mean * scale) if score else None,
            "text": format(score.mean * scale, form) if score else "",
            "about": f"{name}\n{group.full_label}\n{_describe(score, scale)} · "
            f"{sum(counts[s] for s in row):,} examples",
        }
        for name, row, line in zip(names, rows, scores, strict=True)
        for group, score in zip(columns, line, strict=True)
    ]
    domain = [0, 100] if scale > 1 else [0, max((c["value"] or 0 for c in cells), default=1) or 1]
    colors = alt.Scale(domain=domain, range=list(SEQUENTIAL))
    return heatmap(
        cells, names, [g.full_label for g in columns], alt.Color("value:Q", scale=colors, legend=None)
    )


def _mean_score(
    group: RunGroup, sources: list[str], counts: Mapping[str, int], metric: str
) -> Statistic | None:
    """Over the seeds of `group`, the score on `sources` taken together."""
    values = []
    for run in group.runs:
        scored = run.evaluation.get("sources") or {}
        pairs = [
            (number, max(counts[source], 1))
            for source in sources
            if (number := finite_number(scored.get(source, {}).get(metric))) is not None
        ]
        if pairs:
            total = sum(weight for _, weight in pairs)
            values.append(math.fsum(number * weight for number, weight in pairs) / total)
    return Statistic.of(values)


def _describe(cell: Statistic | None, scale: float) -> str:
    if cell is None:
        return "not measured"
    text = f"{cell.mean * scale:.3g}"
    if cell.count > 1:
        text += f" ({cell.low * scale:.3g} to {cell.high * scale:.3g} over {cell.count} seeds)"
    return text
