"""What an option of a method changes, where it has several values: accuracy, loss, and the subsets."""

from typing import Any

import altair as alt

from s2l_jax.report.comparisons import MEASURES, Measure
from s2l_jax.report.findings import Findings
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.series import Series, find_series, in_words, overlap, overlap_of_seeds, spread
from s2l_jax.report.style import COLORS, GREY, chart, significant, sized
from s2l_jax.report.table import NOT_MEASURED

_TITLES = {"accuracy": "accuracy (%)", "heldout_loss": "held-out loss (nats per token)"}
_WIDE = 8  # from the smallest value to the largest: on a logarithmic axis


@report_section("Ablations", place=15)
def ablations(section: Section, found: Findings) -> None:
    """A view for each option that varies, with its figures; a line of the table for each value."""
    said = []
    for series in find_series(found):
        lines = _lines(found, series)
        words = {measure: in_words(series, measure) for measure in MEASURES}
        for measure in MEASURES:
            if words[measure]:
                section.show(_scores(series, measure), series.name, _TITLES[measure.name])
        if any(common != NOT_MEASURED for *_, common in lines):
            reference = series.values[series.reference]
            title = f"overlap with the subset of {reference} (Jaccard index, %)"
            section.show(_overlaps(found, series), series.name, title)
        text = [
            f"{_TITLES[m.name].partition(' (')[0].capitalize()} {each}" for m, each in words.items() if each
        ]
        said.append((series.name, " ".join([*text, _overlap_in_words(found, series)]).strip()))
        section.rows = [*section.rows, *lines]
    if said:
        section.intro = (
            "Runs that differ in one option alone. Strokes are 95 % intervals of the mean over seeds "
            "(Student's t), faint points single seeds. Sentences go by seeds too and not, as those on "
            "differences from the baseline, by evaluation rows: they say nothing of other rows."
        )
        section.header = ("option", "value", "seeds", "accuracy %", "held-out loss", "overlap %")
        section.template, section.content = "ablations.html", {"said": said}


def _lines(found: Findings, series: Series) -> list[tuple[str, ...]]:
    lines = []
    for place, (value, group) in enumerate(zip(series.values, series.groups, strict=True)):
        own = place == series.reference
        common = None if own else overlap(found, group, series.groups[series.reference])
        cells = [
            series.name,
            f"{value}{' (compared with)' if own else ''}",
            group.replicates,
            *(_with_interval(group, measure) for measure in MEASURES),
            NOT_MEASURED if common is None else f"{100 * common:.0f}",
        ]
        lines.append(tuple(cells))
    return lines


def _with_interval(group: Any, measure: Measure) -> str:
    if (found := spread(group, measure)) is None:
        return NOT_MEASURED
    statistic, interval = found
    ends = "" if interval is None else f" ({measure.amount(interval[0])} to {measure.amount(interval[1])})"
    return f"{measure.amount(statistic.mean)}{ends}"


def _overlap_in_words(found: Findings, series: Series) -> str:
    reference = series.groups[series.reference]
    shares = [
        share for _, group in series.others() if (share := overlap(found, group, reference)) is not None
    ]
    if not shares:
        return ""
    value = series.values[series.reference]
    ends = dict.fromkeys(f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    text = f"Subsets have a Jaccard index of {' to '.join(ends)} % with those of {value}"
    seeds = overlap_of_seeds(found, reference)
    return f"{text}{'' if seeds is None else f'; two seeds of {value} have {100 * seeds:.0f} % (dashed)'}."


def _axis(series: Series) -> alt.X:
    """The values on a horizontal axis; with a logarithmic scale where they are far apart."""
    if not series.is_numeric:
        names = [str(value) for value in series.values]
        return alt.X("x:N", title=series.name, sort=names, axis=alt.Axis(labelAngle=0, labelLimit=110))
    values = sorted(set(series.values))
    far = values[0] > 0 and values[-1] / values[0] >= _WIDE
    scale = alt.Scale(type="log", padding=14) if far else alt.Scale(zero=False, nice=False, padding=14)
    axis = alt.Axis(values=values, grid=False, labelOverlap=True, format="~g")
    return alt.X("x:Q", title=series.name, axis=axis, scale=scale)


def _scores(series: Series, measure: Measure) -> Any:
    """Means with their intervals against the value, and every seed."""
    means, seeds = [], []
    for value, group in zip(series.values, series.groups, strict=True):
        if (found := spread(group, measure)) is None:
            continue
        statistic, interval = found
        low, high = interval or (None, None)
        about = f"{value}: {_with_interval(group, measure)}, {statistic.count} seeds"
        means.append(_point(series, value, statistic.mean, measure.scale, about))
        means[-1] |= {"low": _scaled(low, measure.scale), "high": _scaled(high, measure.scale)}
        for run in group.runs if len(group.runs) > 1 else ():
            if (number := measure.of(run)) is not None:
                about = f"{run.name}: {measure.amount(number)}"
                seeds.append(_point(series, value, number, measure.scale, about))
    x, y = _axis(series), alt.Y("y:Q", title=None, scale=alt.Scale(zero=False, padding=8))
    base = chart(means).encode(x=x, tooltip="about:N")
    layers = [_joined(base, series, COLORS[0]).encode(y=y)]
    if any(mean["low"] is not None for mean in means):
        ends = base.mark_rule(color=COLORS[0], strokeWidth=2)
        layers.insert(0, ends.encode(y=alt.Y("low:Q", title=None), y2="high:Q"))
    if seeds:
        single = chart(seeds).mark_circle(color=GREY, size=36, opacity=0.6)
        layers.insert(0, single.encode(x=x, y=y, tooltip="about:N"))
    return sized(alt.layer(*layers), 230)


def _joined(base: Any, series: Series, color: str) -> Any:
    """Points, with a line through them where there is something between two values."""
    if series.is_numeric:
        return base.mark_line(color=color, point={"color": color, "size": 60})
    return base.mark_point(color=color, filled=True, opacity=1, size=60)


def _overlaps(found: Findings, series: Series) -> Any:
    """How many rows the subsets of each value share with those of the reference."""
    reference = series.groups[series.reference]
    points = [
        _point(series, value, share, 100.0, f"{value}: {100 * share:.0f} %")
        for value, group in series.others()
        if (share := overlap(found, group, reference)) is not None
    ]
    line = _joined(chart(points), series, COLORS[2])
    y = alt.Y("y:Q", title=None, scale=alt.Scale(domain=[0, 100]))
    layers = [line.encode(x=_axis(series), y=y, tooltip="about:N")]
    if (seeds := overlap_of_seeds(found, reference)) is not None:
        about = f"two seeds of {series.values[series.reference]}: {100 * seeds:.0f} %"
        rule = chart([{"y": significant(100 * seeds), "about": about}])
        layers.append(rule.mark_rule(color=GREY, strokeDash=[3, 3]).encode(y=y, tooltip="about:N"))
    return sized(alt.layer(*layers), 230)


def _point(series: Series, value: Any, y: float, scale: float, about: str) -> dict[str, Any]:
    x = value if series.is_numeric else str(value)
    return {"x": x, "y": _scaled(y, scale), "about": about}


def _scaled(number: float | None, scale: float) -> float | None:
    return significant(None if number is None else scale * number)
