"""How far every method is from the baseline, with intervals; accuracy and loss against budget."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from s2l_jax.evaluation.intervals import Interval
from s2l_jax.report.comparisons import MEASURES, Measure
from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import FULL, UNTUNED, RunGroup, Statistic
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.series import spread
from s2l_jax.report.style import (
    COLORS,
    GREY,
    ROW,
    chart,
    group_colors,
    names_axis,
    series,
    significant,
    sized,
)
from s2l_jax.report.table import NOT_MEASURED


@report_section("Differences from the baseline", place=12)
def differences(section: Section, found: Findings) -> None:
    """Mean differences as dots with their intervals, and each in words."""
    comparisons = found.part("comparisons")
    for measure in MEASURES:
        compared = [each for each in comparisons.get(measure.name, ()) if "difference" in each]
        if compared:
            section.show(_figure(compared, measure), _TITLES[measure.name])
            section.rows = [*section.rows, *(_cells(each, measure) for each in compared)]
    if not section.rows:
        section.missing = "no method has a seed or row in common with a baseline (report.baseline)"
        return
    section.intro = f"Against {comparisons['baseline']}: {comparisons['method']}."
    section.header = ("measure", "selection", "budget", "replicates", "mean ± deviation", "in words")


Point = tuple[RunGroup, Statistic, Interval | None]

_BESIDE = 1.04  # as a ratio, how far the points of the first and the last of many methods are apart
_TITLES = {"accuracy": "accuracy", "heldout_loss": "held-out loss"}


def _cells(entry: Mapping[str, Any], measure: Measure) -> list[str]:
    deviation = entry["standard_deviation"]
    spread = "" if deviation is None else f" ± {measure.amount(deviation)}"
    return [
        _TITLES[measure.name],
        entry["label"],
        f"{entry['budget']:,}" if entry["budget"] else NOT_MEASURED,
        str(entry["num_replicates"]),
        f"{measure.amount(entry['mean'])}{spread}",
        entry["in_words"],
    ]


def _figure(compared: Sequence[Mapping[str, Any]], measure: Measure) -> Any:
    names = [f"{e['label']} · {e['budget']:,}" if e["budget"] else e["label"] for e in compared]
    rows = [
        {"name": name, "about": f"{name}: {e['in_words']}"}
        | dict(zip(("x", "low", "high"), _scaled(e["difference"], measure.scale), strict=True))
        for name, e in zip(names, compared, strict=True)
    ]
    title = f"difference of the {_TITLES[measure.name]}{measure.unit and ' (points)'}"
    base = chart(rows).encode(y=names_axis(names), tooltip="about:N")
    ends = base.mark_rule(color=COLORS[0], strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    means = base.mark_circle(color=COLORS[0], size=90, opacity=1).encode(x=alt.X("x:Q", title=title))
    none = chart([{"x": 0}]).mark_rule(color=GREY, strokeDash=[3, 3]).encode(x="x:Q")
    return sized(alt.layer(none, ends, means), ROW * len(names))


def _scaled(difference: Mapping[str, Any], scale: float) -> list[float | None]:
    return [significant(scale * number) for number in (difference["mean"], *difference["interval"])]


@report_section("Accuracy and loss against budget", place=14)
def budgets(section: Section, found: Findings) -> None:
    """Accuracy relative to full data, and held-out loss, a line for each method (the paper's figure 4)."""
    for measure in MEASURES:
        known = [(group, each) for group in found.groups if (each := spread(group, measure))]
        lines: dict[str, list[Point]] = {}
        for group, (statistic, interval) in known:
            if group.budget and group.method not in (UNTUNED, FULL):
                lines.setdefault(group.label, []).append((group, statistic, interval))
        if any(len(line) > 1 for line in lines.values()):
            full = next((each[0].mean for group, each in known if group.method == FULL), None)
            section.show(_against_budget(found, lines, measure, full), _TITLES[measure.name])
    if section.views:
        section.intro = (
            "Points are means over seeds, strokes 95 % intervals of these (Student's t); dashed is all data. "
            "Intervals of two methods may overlap where their paired difference is clear."
        )


def _place(place: int, count: int) -> float:
    """Where a line's points stand beside the others', from -1/2 to 1/2; nearer where lines are few."""
    return (place - (count - 1) / 2) / max(count - 1, 3)


def _against_budget(
    found: Findings,
    lines: Mapping[str, Sequence[Point]],
    measure: Measure,
    full: float | None,
) -> Any:
    """Accuracies in per cent of full data's where that is known; a dashed line is full data's."""
    relative = measure.name == "accuracy" and full
    scale = 100.0 / relative if relative else measure.scale
    unit = {"accuracy": " (% of full data's)" if relative else " (%)"}.get(measure.name, " (nats per token)")
    rows = [
        {
            "name": name,
            "x": significant((group.budget or 0) * _BESIDE ** _place(place, len(lines))),
            "y": significant(scale * statistic.mean),
            "low": significant(scale * interval[0]) if interval else None,
            "high": significant(scale * interval[1]) if interval else None,
            "about": f"{group.full_label}: {measure.amount(statistic.mean)}{' %' * (measure.scale > 1)}",
        }
        for place, (name, line) in enumerate(lines.items())
        for group, statistic, interval in sorted(line, key=lambda each: each[0].budget or 0)
    ]
    colors = group_colors(found.groups)
    own = [colors[line[0][0].label] for line in lines.values()]
    groups = [group for line in lines.values() for group, *_ in line]
    budgets = sorted({group.budget for group in groups if group.budget and group.asked[1] == "examples"})
    axis = alt.Axis(format=",", grid=False, values=budgets or alt.Undefined)
    base = chart(rows).encode(
        x=alt.X(
            "x:Q", title="budget (examples)", axis=axis, scale=alt.Scale(type="log", nice=False, padding=30)
        ),
        color=series(list(lines), own),
        tooltip="about:N",
    )
    y = alt.Y("y:Q", title=_TITLES[measure.name] + unit, scale=alt.Scale(zero=False))
    layers = [base.mark_line(point={"size": 50}).encode(y=y)]
    if any(row["low"] is not None for row in rows):
        layers.append(base.mark_rule().encode(y="low:Q", y2="high:Q"))
    if full is not None:
        dashed = chart([{"y": significant(scale * full)}])
        layers.append(dashed.mark_rule(color=GREY, strokeDash=[3, 3]).encode(y="y:Q"))
    return sized(alt.layer(*layers), 300)
