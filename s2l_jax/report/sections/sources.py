"""Shares of the data sources, in the pool and in each subset."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import FULL, RunGroup
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import (
    COLORS,
    DIVERGING,
    GREY,
    ROW,
    SOURCE_ROWS,
    chart,
    heatmap,
    names_axis,
    series,
    significant,
    sized,
)

SOURCE_BARS = len(COLORS)
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


def source_shares(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Any:
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
    parts = {source: [source] for source in top}
    if rest:
        parts[f"other ({len(rest)} sources)"] = rest
    rows = [
        {
            "name": name,
            "source": part,
            "order": order,
            "x": significant(100 * math.fsum(shares.get(source, 0.0) for source in inside)),
        }
        for name, shares in lines
        for order, (part, inside) in enumerate(parts.items())
    ]
    for row in rows:
        row["about"] = f"{row['name']}\n{row['source']}: {row['x']:.1f} %"
    names = list(dict.fromkeys(name for name, _ in lines))
    figure = (
        chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("x:Q", title="% of examples", scale=alt.Scale(domain=[0, 100], nice=False)),
            y=names_axis(names),
            color=series(list(parts), [*COLORS[: len(top)], *([GREY] if rest else [])], "source"),
            order="order:Q",
            tooltip="about:N",
        )
    )
    return sized(figure, ROW * len(names))


def source_ratios(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Any:
    """How many times more often a source is in a subset than in the pool, for every source."""
    pool = (results.get("pool") or {}).get("sources") or {}
    subsets = [(name, shares) for name, shares in subset_shares(groups) if name != FULL]
    if not pool or not subsets:
        return "shares of both the pool and a subset are needed"
    base = _shares(pool)
    ordered = sorted(pool, key=lambda source: (-pool[source], source))[:SOURCE_ROWS]
    cells = [
        {
            "row": source,
            "column": name,
            "value": significant(_log_ratio(shares.get(source, 0.0), base[source])),
            "about": f"{source}\n{name}\n{100 * shares.get(source, 0.0):.2f} % of the subset, "
            f"{100 * base[source]:.2f} % of the pool",
        }
        for source in ordered
        for name, shares in subsets
    ]
    scale = alt.Scale(domain=[-MAX_LOG_RATIO, 0, MAX_LOG_RATIO], range=list(DIVERGING))
    words = "datum.value < 0 ? '1/' + pow(2, -datum.value) + ' ×' : pow(2, datum.value) + ' ×'"
    legend = alt.Legend(
        labelExpr=words, values=[-3, -2, -1, 0, 1, 2, 3], gradientLength=alt.ExprRef("min(width, 380)")
    )
    return heatmap(
        cells, ordered, [name for name, _ in subsets], alt.Color("value:Q", scale=scale, legend=legend)
    )


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


def _log_ratio(share: float, base: float) -> float | None:
    """Log2 of the ratio, cut to the colour scale; a source never picked is at its low end."""
    if base <= 0:
        return None
    if share <= 0:
        return -MAX_LOG_RATIO
    return min(max(math.log2(share / base), -MAX_LOG_RATIO), MAX_LOG_RATIO)
