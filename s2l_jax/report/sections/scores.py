"""Accuracy and held-out loss of every group of runs."""

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import UNTUNED, RunGroup, RunResult
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import GREY, ROW, chart, group_colors, names_axis, significant, sized


@report_section("Accuracy and held-out loss", place=40)
def scores(section: Section, found: Findings) -> None:
    """Mean accuracy as bars and held-out loss as dots, one line per group, every seed a point."""
    section.intro = "Bars and strokes are means, white points single seeds."
    if any(group.method == UNTUNED for group in found.groups):
        section.intro += " The dotted line is the target before fine-tuning."
    panels = [
        (title, value, scale)
        for title, value, scale in (
            ("accuracy (%)", lambda run: run.accuracy, 100.0),
            ("held-out loss (nats per token)", lambda run: run.heldout_loss, 1.0),
        )
        if any(group.statistic(value) for group in found.groups)
    ]
    if not panels:
        section.missing = "no target was evaluated"
        return
    rows = [g for g in found.groups if any(g.statistic(value) for _, value, _ in panels)]
    for title, value, scale in panels:
        section.show(_panel(rows, group_colors(found.groups), value, scale), title=title)


def _panel(
    groups: Sequence[RunGroup],
    colors: dict[str, str],
    value: Callable[[RunResult], float | None],
    scale: float,
) -> Any:
    """A line for each group: its mean, and its seeds where there are several."""
    means = [
        {
            "name": group.full_label,
            "x": significant(found.mean * scale),
            "color": colors[group.label],
            "about": f"{group.full_label}, mean: {found.mean * scale:.4g}",
        }
        for group in groups
        if (found := group.statistic(value))
    ]
    seeds = [
        {
            "name": group.full_label,
            "x": significant(number * scale),
            "about": f"{run.name}, seed {run.selection.get('seed')}: {number * scale:.4g}",
        }
        for group in groups
        if len(group.runs) > 1
        for run in group.runs
        if (number := value(run)) is not None
    ]
    y, x = names_axis([group.full_label for group in groups]), alt.X("x:Q", title=None)
    own = alt.Color("color:N", scale=None)
    base = chart(means).encode(x=x, y=y, color=own, tooltip="about:N")
    mean = base.mark_bar() if scale > 1 else base.mark_tick(thickness=4, size=16)
    point: dict[str, Any] = {
        "filled": True,
        "fill": "white",
        "fillOpacity": 0.85,
        "stroke": "#444a55",
        "strokeWidth": 1.5,
    }
    single = chart(seeds).mark_point(size=42, opacity=1, **point).encode(x=x, y=y, tooltip="about:N")
    layers = [mean, single] if seeds else [mean]
    untuned = next((s for g in groups if g.method == UNTUNED and (s := g.statistic(value))), None)
    if untuned:
        line = chart([{"x": significant(untuned.mean * scale)}])
        layers.append(line.mark_rule(color=GREY, strokeDash=[3, 3]).encode(x=x))
    return sized(alt.layer(*layers), ROW * len(groups))
