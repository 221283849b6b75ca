"""How far every method is from the baseline, with intervals, and accuracy against budget."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from s2l_jax.report.comparisons import MEASURES, Measure
from s2l_jax.report.runs import FULL, UNTUNED, RunGroup, Statistic
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import COLORS, GREY, group_colors, label, legend_below, named_ticks, new_figure
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


def _figure(compared: Sequence[Mapping[str, Any]], measure: Measure) -> go.Figure:
    names = [f"{e['label']} · {e['budget']:,}" if e["budget"] else e["label"] for e in compared]
    means = [measure.scale * e["difference"]["mean"] for e in compared]
    ends = [[measure.scale * end for end in e["difference"]["interval"]] for e in compared]
    figure = new_figure(90 + 27 * len(compared))
    figure.add_trace(
        go.Scatter(
            x=means,
            y=list(range(len(compared))),
            error_x={
                "array": [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
                "arrayminus": [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
                "thickness": 2,
                "width": 5,
            },
            mode="markers",
            marker={"size": 10, "color": COLORS[0]},
            text=[label(e["in_words"], 120) for e in compared],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_vline(0, line={"dash": "dot", "color": GREY})
    figure.update_xaxes(title_text=f"difference of the {_TITLES[measure.name]}{measure.unit and ' (points)'}")
    return figure.update_layout(named_ticks("yaxis", names))


@report_section("Accuracy against budget", place=14)
def budgets(section: Section, found: Findings) -> None:
    """Accuracy relative to full data, a line for each method (arXiv 2403.07384, figure 4)."""
    accuracies = [(group, s) for group in found.groups if (s := group.statistic(lambda run: run.accuracy))]
    lines: dict[str, list[tuple[RunGroup, Statistic]]] = {}
    for group, accuracy in accuracies:
        if group.budget and group.method not in (UNTUNED, FULL):
            lines.setdefault(group.label, []).append((group, accuracy))
    if all(len(line) < 2 for line in lines.values()):
        return
    full = next((accuracy.mean for group, accuracy in accuracies if group.method == FULL), None)
    scale = 100.0 if not full else 100.0 / full
    section.intro = "Points are means over seeds; strokes reach from the lowest to the highest."
    figure, colors = new_figure(360), group_colors(found.groups)
    for name, line in lines.items():
        line.sort(key=lambda each: each[0].budget or 0)
        means = [scale * accuracy.mean for _, accuracy in line]
        figure.add_trace(
            go.Scatter(
                x=[group.budget for group, _ in line],
                y=means,
                error_y={
                    "array": [scale * a.high - mean for mean, (_, a) in zip(means, line, strict=True)],
                    "arrayminus": [mean - scale * a.low for mean, (_, a) in zip(means, line, strict=True)],
                    "thickness": 1.5,
                },
                name=label(name),
                mode="lines+markers",
                line={"color": colors[line[0][0].label]},
            )
        )
    if full:
        figure.add_hline(100.0, line={"dash": "dot", "color": GREY})
    figure.update_xaxes(title_text="budget (examples)", type="log")
    figure.update_yaxes(title_text="accuracy (% of full data's)" if full else "accuracy (%)")
    section.show(legend_below(figure))
