"""Where the wall time went."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from s2l_jax.report.runs import RunGroup, Statistic, finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import COLORS, legend_below, named_ticks, new_figure
from s2l_jax.report.table import format_seconds


@report_section("Time", place=120)
def timing(section: Section, found: Findings) -> None:
    """Time behind each row, and in all."""
    section.intro = (
        "Wall time behind each row, mean over seeds. The proxy and its sweeps are shared, and each "
        "method that used them is charged all of their time."
    )
    sums: dict[str, list[float]] = {}
    for key, value in found.part("timing").items():
        if (seconds := finite_number(value)) is not None:
            stage, _, name = re.sub(r"^seed_\d+/", "", key).partition("/")
            sums.setdefault(f"{stage} runs" if name else stage, []).append(seconds)
    section.header = ("stage", "number", "total time")
    section.rows = [(stage, str(len(parts)), format_seconds(sum(parts))) for stage, parts in sums.items()]
    section.show(time_bars(found.results, found.groups))


def time_bars(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> go.Figure | str:
    """Seconds behind each group's result: proxy and sweeps (where used), selection, target."""
    timing = results.get("timing") or {}
    rows = [g for g in groups if any(r.selection or r.target for r in g.runs)]
    parts: list[tuple[str, str, list[float | None]]] = []
    for name, key, color in (
        ("proxy", "proxy", COLORS[0]),
        ("trajectory sweeps", "trajectories", COLORS[6]),
        ("selection", "selection/{}", COLORS[4]),
        ("target", "target/{}", COLORS[1]),
    ):
        seconds = [_mean_time(timing, key, group) for group in rows]
        if any(value is not None for value in seconds):
            parts.append((name, color, seconds))
    if not parts:
        return "no times were measured"
    figure = new_figure(90 + 27 * len(rows), barmode="stack", legend_traceorder="normal")
    for name, color, seconds in parts:
        text = [f"{name}: {format_seconds(s)}" if s is not None else "" for s in seconds]
        figure.add_trace(
            go.Bar(
                x=seconds,
                y=list(range(len(rows))),
                orientation="h",
                name=name,
                marker_color=color,
                hovertext=text,
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.update_layout(named_ticks("yaxis", [g.full_label for g in rows]))
    return legend_below(figure.update_xaxes(title_text="seconds"))


def _mean_time(timing: Mapping[str, Any], key: str, group: RunGroup) -> float | None:
    if key in ("proxy", "trajectories"):
        used = [part for run in group.runs for part in run.selection.get("used", ())]
        found = Statistic.of(timing.get(part) for part in used if part.rpartition("/")[2] == key)
        return found.mean if found else None
    found = group.statistic(lambda run: timing.get(key.format(run.name)))
    return found.mean if found else None
