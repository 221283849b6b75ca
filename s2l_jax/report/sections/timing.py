"""Where the wall time went."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from s2l_jax.config.inputs import PROXY_PARTS
from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import RunGroup, RunResult, Statistic, finite_number
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import COLORS, ROW, chart, names_axis, series, significant, sized
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
            stage, _, name = re.sub(r"^(proxy_[^/]+/)?(seed_\d+/)?", "", key).partition("/")
            sums.setdefault(f"{stage} runs" if name else stage, []).append(seconds)
    section.header = ("stage", "number", "total time")
    section.rows = [(stage, str(len(parts)), format_seconds(sum(parts))) for stage, parts in sums.items()]
    section.show(time_bars(found.results, found.groups))


def time_bars(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Any:
    """Seconds behind each group's result: proxy, sweeps and features (where used), selection, target."""
    timing = results.get("timing") or {}
    rows = [g for g in groups if any(r.selection or r.target for r in g.runs)]
    parts: list[tuple[str, str, list[float | None]]] = []
    for name, key, color in (
        ("proxy", "proxy", COLORS[0]),
        ("trajectory sweeps", "trajectories", COLORS[5]),
        ("losses from elsewhere", "imported", COLORS[2]),
        ("hidden states, gradients", "features", COLORS[4]),
        ("selection", "selection/{}", COLORS[6]),
        ("target", "target/{}", COLORS[1]),
    ):
        seconds = [_mean_time(timing, key, group) for group in rows]
        if any(value is not None for value in seconds):
            parts.append((name, color, seconds))
    if not parts:
        return "no times were measured"
    names = [group.full_label for group in rows]
    bars = [
        {
            "name": group,
            "part": part,
            "order": order,
            "x": significant(value),
            "about": f"{group}\n{part}: {format_seconds(value)}",
        }
        for order, (part, _, seconds) in enumerate(parts)
        for group, value in zip(names, seconds, strict=True)
        if value is not None
    ]
    figure = (
        chart(bars)
        .mark_bar()
        .encode(
            x=alt.X("x:Q", title="seconds"),
            y=names_axis(names),
            color=series([part for part, *_ in parts], [color for _, color, _ in parts], "part"),
            order="order:Q",
            tooltip="about:N",
        )
    )
    return sized(figure, ROW * len(names))


def _mean_time(timing: Mapping[str, Any], key: str, group: RunGroup) -> float | None:
    if key in PROXY_PARTS:
        used = [part for run in group.runs for part in run.selection.get("used", ())]
        found = Statistic.of(timing.get(part) for part in used if part.rpartition("/")[2] == key)
        return found.mean if found else None
    if key == "features":
        found = group.statistic(lambda run: _features_time(timing, run))
        return found.mean if found else None
    found = group.statistic(lambda run: timing.get(key.format(run.name)))
    return found.mean if found else None


def _features_time(timing: Mapping[str, Any], run: RunResult) -> float | None:
    parts = [part for part in run.selection.get("used", ()) if part.rpartition("/")[2] not in PROXY_PARTS]
    seconds = [number for part in parts if (number := finite_number(timing.get(part))) is not None]
    return sum(seconds) if seconds else None
