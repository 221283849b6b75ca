"""Shares of the data sources, in the pool and in each subset."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from s2l_jax.report.runs import FULL, RunGroup
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import (
    COLORS,
    DIVERGING,
    GREY,
    SOURCE_ROWS,
    heatmap,
    label,
    legend_below,
    named_ticks,
    new_figure,
)

SOURCE_BARS = 10
MAX_LOG_RATIO = 3.0


@report_section("Sources in the pool and in each subset", place=90)
def sources(section: Section, found: Findings) -> None:
    """Shares, and how they compare with the pool's."""
    section.intro = (
        "Share of the examples, mean over seeds; or how over- (blue) or under-represented (orange) "
        "a source is against the pool."
    )
    section.show(source_shares(found.results, found.groups), "shares")
    ratios = source_ratios(found.results, found.groups)
    if not isinstance(ratios, str):
        section.show(ratios, "against the pool")


def source_shares(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> go.Figure | str:
    """Stacked shares of the largest sources, in the pool and in each subset (mean over seeds)."""
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
    top, rest = ordered[:SOURCE_BARS], ordered[SOURCE_BARS:]
    figure = new_figure(90 + 27 * len(lines), barmode="stack", legend_traceorder="normal")
    for source, color in zip(top, COLORS, strict=False):
        figure.add_trace(_share_bar(lines, label(source), color, [source]))
    if rest:
        figure.add_trace(_share_bar(lines, f"other ({len(rest)} sources)", GREY, rest))
    figure.update_layout(named_ticks("yaxis", [name for name, _ in lines]))
    return legend_below(figure.update_xaxes(title_text="% of examples", range=[0, 100]))


def source_ratios(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> go.Figure | str:
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
    figure = heatmap(z, hover, ordered, [name for name, _ in subsets], "share")
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


def _share_bar(lines: list, name: str, color: str, sources: list[str]) -> Any:
    return go.Bar(
        x=[100 * math.fsum(shares.get(source, 0.0) for source in sources) for _, shares in lines],
        y=list(range(len(lines))),
        orientation="h",
        name=name,
        marker={"color": color, "line": {"width": 0}},
        hovertemplate=f"{name}: %{{x:.1f}} %<extra></extra>",
    )


def _log_ratio(share: float, base: float) -> float | None:
    """Log2 of the ratio, cut to the colour scale; a source never picked is at its low end."""
    if base <= 0:
        return None
    if share <= 0:
        return -MAX_LOG_RATIO
    return min(max(math.log2(share / base), -MAX_LOG_RATIO), MAX_LOG_RATIO)
