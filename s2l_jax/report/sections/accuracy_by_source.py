"""Accuracy of every group of runs on each data source."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from s2l_jax.report.runs import RunGroup, Statistic, finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import SEQUENTIAL, SOURCE_ROWS, heatmap, label


@report_section("Accuracy by source", place=50)
def accuracy_by_source(section: Section, found: Findings) -> None:
    """Sources against groups of runs."""
    section.intro = "Mean over seeds; the largest sources of the pool on top. Hover for range and counts."
    section.show(source_scores(found.results, found.groups))


def source_scores(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> go.Figure | str:
    """Accuracy per source (rows, largest in the pool first) and group (columns), mean over seeds.

    Falls back to held-out loss when no answers were graded. Sources beyond `SOURCE_ROWS` are
    pooled in one row, weighted by their number of evaluation examples.
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

    scale, unit = 100.0, "accuracy %"
    cells = [[_mean_score(group, row, counts, "accuracy") for group in columns] for row in rows]
    if not any(cell for line in cells for cell in line):
        scale, unit = 1.0, "loss"
        cells = [[_mean_score(group, row, counts, "heldout_loss") for group in columns] for row in rows]
    z = [[cell.mean * scale if cell else None for cell in line] for line in cells]
    hover = [
        [
            f"{label(name, 80)}<br>{label(group.full_label, 80)}<br>"
            f"{_describe(cell, scale)} · {sum(counts[s] for s in row):,} examples"
            for group, cell in zip(columns, line, strict=True)
        ]
        for name, row, line in zip(names, rows, cells, strict=True)
    ]
    figure = heatmap(z, hover, names, [g.full_label for g in columns], unit)
    figure.update_traces(colorscale=SEQUENTIAL, zmin=0)
    if scale > 1:
        figure.update_traces(zmax=100)
    if len(columns) <= 24:
        form = ".0f" if scale > 1 else ".2f"
        text = [["" if v is None else format(v, form) for v in line] for line in z]
        figure.update_traces(text=text, texttemplate="%{text}")
    return figure


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
