"""Accuracy and held-out loss of every group of runs."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from s2l_jax.report.runs import UNTUNED
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import GREY, MARKERS, group_colors, label, named_ticks, style


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
    colors = group_colors(found.groups)
    figure = make_subplots(1, len(panels), shared_yaxes=True, horizontal_spacing=0.04)
    for column, (title, value, scale) in enumerate(panels, start=1):
        means = [s.mean * scale if (s := g.statistic(value)) else None for g in rows]
        place = {"row": 1, "col": column}
        shared = {"y": list(range(len(rows))), "x": means, "showlegend": False}
        shared["hovertemplate"] = "%{x:.4g}<extra>%{text}</extra>"
        shared["text"] = [label(f"{g.full_label}, mean", 90) for g in rows]
        fill = [colors[g.label] for g in rows]
        if column == 1 and "accuracy" in title:
            bars = go.Bar(orientation="h", marker_color=fill, textposition="none", **shared)
            figure.add_trace(bars, **place)
        else:
            marks = {"color": fill, "symbol": "line-ns", "size": 15}
            marks["line"] = {"width": 4, "color": fill}
            figure.add_trace(go.Scatter(mode="markers", marker=marks, **shared), **place)
        points = [
            (position, number * scale, run)
            for position, group in enumerate(rows)
            if len(group.runs) > 1
            for run in group.runs
            if (number := value(run)) is not None
        ]
        figure.add_trace(
            go.Scatter(
                x=[number for _, number, _ in points],
                y=[position for position, _, _ in points],
                text=[label(f"{run.name}, seed {run.selection.get('seed')}") for *_, run in points],
                hovertemplate="%{x:.4g}<extra>%{text}</extra>",
                mode="markers",
                marker={**MARKERS, "line": {"width": 1.6, "color": "#444a55"}},
                showlegend=False,
            ),
            **place,
        )
        figure.update_xaxes(title_text=title, **place)
        untuned = next((g.statistic(value) for g in rows if g.method == UNTUNED), None)
        if untuned:
            figure.add_vline(untuned.mean * scale, line={"dash": "dot", "color": GREY}, **place)
    for axis in ("yaxis", "yaxis2")[: len(panels)]:
        figure.update_layout(named_ticks(axis, [g.full_label for g in rows]))
    section.show(style(figure, 90 + 27 * len(rows)))
