"""Figures by data source: accuracy, share of the pool and of each subset."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s2l_jax.report.runs import FULL, RunGroup, Statistic, finite_number
from s2l_jax.report.style import (
    COLORS,
    DIVERGING,
    GREY,
    SEQUENTIAL,
    label,
    legend_below,
    named_ticks,
    new_figure,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

SOURCE_ROWS = 60
SOURCE_BARS = 10
MAX_LOG_RATIO = 3.0


def accuracy_by_source(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> "go.Figure | str":
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

    metric, scale, unit = "accuracy", 100.0, "accuracy %"
    cells = [[_mean_score(group, row, counts, metric) for group in columns] for row in rows]
    if not any(cell for line in cells for cell in line):
        metric, scale, unit = "heldout_loss", 1.0, "loss"
        cells = [[_mean_score(group, row, counts, metric) for group in columns] for row in rows]
    z = [[cell.mean * scale if cell else None for cell in line] for line in cells]
    form = "{:.0f}" if scale > 1 else "{:.2f}"
    shown = len(columns) <= 24
    hover = [
        [
            f"{label(name, 80)}<br>{label(group.full_label, 80)}<br>"
            f"{_describe(cell, scale)} · {sum(counts[s] for s in row):,} examples"
            for group, cell in zip(columns, line, strict=True)
        ]
        for name, row, line in zip(names, rows, cells, strict=True)
    ]
    figure = _heatmap(z, hover, names, [g.full_label for g in columns], unit)
    figure.update_traces(colorscale=SEQUENTIAL, zmin=0)
    if scale > 1:
        figure.update_traces(zmax=100)
    if shown:
        text = [["" if v is None else form.format(v) for v in line] for line in z]
        figure.update_traces(text=text, texttemplate="%{text}")
    return figure


def source_shares(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> "go.Figure | str":
    """Stacked shares of the largest sources, in the pool and in each subset (mean over seeds)."""
    import plotly.graph_objects as go

    pool = (results.get("pool") or {}).get("sources") or {}
    subsets = subset_shares(groups)
    if not pool and not subsets:
        return "the pool has no source names"
    lines = ([("pool", _shares(pool))] if pool else []) + subsets
    weight = pool or {
        source: math.fsum(shares.get(source, 0.0) for _, shares in lines)
        for source in {source for _, shares in lines for source in shares}
    }
    ordered = sorted(weight, key=lambda source: (-weight[source], source))
    top = ordered if len(ordered) <= SOURCE_BARS else ordered[:SOURCE_BARS]
    figure = new_figure(90 + 27 * len(lines), barmode="stack", legend_traceorder="normal")
    for source, color in zip(top, COLORS, strict=False):
        figure.add_trace(_share_bar(go, lines, label(source), color, [source]))
    if len(ordered) > len(top):
        rest = ordered[len(top) :]
        figure.add_trace(_share_bar(go, lines, f"other ({len(rest)} sources)", GREY, rest))
    figure.update_layout(named_ticks("yaxis", [name for name, _ in lines]))
    return legend_below(figure.update_xaxes(title_text="% of examples", range=[0, 100]))


def source_ratios(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> "go.Figure | str":
    """How many times more often a source is in a subset than in the pool, for every source."""
    pool = (results.get("pool") or {}).get("sources") or {}
    subsets = [(name, shares) for name, shares in subset_shares(groups) if name != FULL]
    if not pool or not subsets:
        return "shares of both the pool and a subset are needed"
    base = _shares(pool)
    ordered = sorted(pool, key=lambda source: (-pool[source], source))[:SOURCE_ROWS]
    z, hover = [], []
    for source in ordered:
        z.append([_log_ratio(shares.get(source, 0.0), base[source]) for _, shares in subsets])
        hover.append(
            [
                f"{label(source, 80)}<br>{label(name, 80)}<br>"
                f"{100 * shares.get(source, 0.0):.2f} % of the subset, "
                f"{100 * base[source]:.2f} % of the pool"
                for name, shares in subsets
            ]
        )
    figure = _heatmap(z, hover, ordered, [name for name, _ in subsets], "share")
    ticks = [-3, -2, -1, 0, 1, 2, 3]
    bar = {"tickvals": ticks, "ticktext": ["≤ ⅛×", "¼×", "½×", "1×", "2×", "4×", "≥ 8×"]}
    figure.update_traces(colorscale=DIVERGING, zmin=-MAX_LOG_RATIO, zmax=MAX_LOG_RATIO)
    return figure.update_traces(colorbar=bar)


def subset_shares(groups: Sequence[RunGroup]) -> list[tuple[str, dict[str, float]]]:
    """For each group with a selection, its label and the share of each source, mean over seeds."""
    found = []
    for group in groups:
        shares = [_shares(s) for run in group.runs if (s := run.selection.get("sources"))]
        if shares:
            sources = sorted({source for share in shares for source in share})
            mean = {s: math.fsum(x.get(s, 0.0) for x in shares) / len(shares) for s in sources}
            found.append((group.full_label, mean))
    return found


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {source: count / total for source, count in counts.items()} if total else {}


def _share_bar(go: Any, lines: list, name: str, color: str, sources: list[str]) -> Any:
    return go.Bar(
        x=[100 * math.fsum(shares.get(source, 0.0) for source in sources) for _, shares in lines],
        y=list(range(len(lines))),
        orientation="h",
        name=name,
        marker={"color": color, "line": {"width": 0}},
        hovertemplate=f"{name}: %{{x:.1f}} %<extra></extra>",
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


def _log_ratio(share: float, base: float) -> float | None:
    """Log2 of the ratio, cut to the colour scale; a source never picked is at its low end."""
    if base <= 0:
        return None
    if share <= 0:
        return -MAX_LOG_RATIO
    return min(max(math.log2(share / base), -MAX_LOG_RATIO), MAX_LOG_RATIO)


def _heatmap(z: list, hover: list, rows: Sequence[str], columns: Sequence[str], unit: str) -> Any:
    import plotly.graph_objects as go

    slanted = max(len(name) for name in columns) * len(columns) > 90
    top = min(max(len(name) for name in columns), 30) * 5 + 20 if slanted else 30
    figure = new_figure(top + 16 + 20 * len(rows), margin={"l": 60, "r": 16, "t": top, "b": 16})
    figure.add_trace(
        go.Heatmap(
            z=z,
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            xgap=1,
            ygap=1,
            colorbar={"thickness": 10, "len": 220, "lenmode": "pixels", "y": 1, "yanchor": "top"},
            name=unit,
        )
    )
    figure.update_layout(named_ticks("yaxis", rows) | named_ticks("xaxis", columns, limit=30))
    return figure.update_xaxes(side="top", tickangle=-40 if slanted else 0)
