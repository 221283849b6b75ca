"""Whether a selection is worth its cost: accuracy against all floating-point operations that it took."""

from collections.abc import Iterator
from typing import Any

import altair as alt

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import RunGroup, selection_flops
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import chart, group_colors, series, significant, sized


@report_section("Is the selection worth its cost?", place=16)
def cost(section: Section, found: Findings) -> None:
    """A point for each group: what was spent, the proxy and its sweeps included, and how good it got."""
    section.intro = (
        "Floating-point operations of the target's training, and for methods by loss of the proxy's training "
        "and all its sweeps, which they would have to pay for alone, in whichever workdir; and of what else "
        "they go by, such as hidden states. To the left is cheaper, up is better."
    )
    unknown = {run.name: selection_flops(found.results, run.name)[1] for g in found.groups for run in g.runs}
    if names := [name for name, parts in unknown.items() if parts]:
        section.intro += (
            f" Not known, and not counted, is what training the proxy took for {', '.join(names)}."
        )
    points = list(costs(found))
    if not points:
        section.missing = "no evaluated target has a count of its operations"
        return
    section.header = ("selection", "operations", "of them for selecting", "accuracy %")
    section.rows = [
        (group.full_label, f"{total:.3g}", f"{100 * choosing / total:.0f} %", f"{100 * accuracy:.1f}")
        for group, total, choosing, accuracy in points
    ]
    section.show(cost_figure(found, points))


def costs(found: Findings) -> Iterator[tuple[RunGroup, float, float, float]]:
    """Of each group the operations in all, those for selecting, and the accuracy, means over seeds."""
    for group in found.groups:
        training = group.statistic(lambda run: run.target.get("training_flops"))
        accuracy = group.statistic(lambda run: run.accuracy)
        if training is None or accuracy is None:
            continue
        choosing = selecting_flops(found, group)
        yield group, training.mean + choosing, choosing, accuracy.mean


def selecting_flops(found: Findings, group: RunGroup) -> float:
    """Operations of the proxies, sweeps and features that a group was made with, mean over seeds."""
    spent = group.statistic(lambda run: selection_flops(found.results, run.name)[0])
    return spent.mean if spent else 0.0


def cost_figure(found: Findings, points: list[tuple[RunGroup, float, float, float]]) -> Any:
    """Accuracy against operations, on a logarithmic axis."""
    colors = group_colors(found.groups)
    rows = [
        {
            "name": group.full_label,
            "x": significant(total),
            "y": significant(100 * accuracy),
            "about": f"{group.full_label}: {100 * accuracy:.1f} % for {total:.3g} operations",
        }
        for group, total, _, accuracy in points
    ]
    axis = alt.Axis(format=".1e", tickCount=4)
    shown = {group.full_label: colors[group.label] for group, *_ in points}
    figure = chart(rows).mark_circle(size=130, opacity=0.75)
    encoded = figure.encode(
        x=alt.X("x:Q", title="floating-point operations", axis=axis, scale=alt.Scale(type="log", padding=20)),
        y=alt.Y("y:Q", title="accuracy (%)", scale=alt.Scale(zero=False, padding=12)),
        color=series(list(shown), list(shown.values())),
        tooltip="about:N",
    )
    return sized(encoded, 260)
