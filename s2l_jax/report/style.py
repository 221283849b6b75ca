"""One look for all figures: colours, axes that suit light and dark pages, and safe labels."""

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from s2l_jax.report.runs import FULL, UNTUNED, RunGroup

COLORS = (
    "#3f7fd0",
    "#e0803a",
    "#3f9f74",
    "#c75060",
    "#8d6cc4",
    "#b58e2f",
    "#3ba3b5",
    "#d071a8",
    "#7d9a3c",
    "#a0705a",
)
GREY = "#8a8f98"
SOURCE_ROWS = 60  # sources that a heatmap shows
LEGEND_WIDTH = 900  # pixels; what a page on a laptop leaves
GRID = "rgba(128, 128, 128, 0.22)"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKERS = {"color": "rgba(255, 255, 255, 0.85)", "line": {"width": 1.6}, "size": 7}

# See-through on purpose: cells take on the page behind them and carry its text colour.
SEQUENTIAL = [[0.0, "rgba(63, 127, 208, 0.04)"], [1.0, "rgba(63, 127, 208, 0.78)"]]
DIVERGING = [
    [0.0, "rgba(208, 104, 44, 1)"],
    [0.5, "rgba(128, 128, 128, 0.08)"],
    [1.0, "rgba(42, 98, 178, 1)"],
]


def new_figure(height: int, **layout: Any) -> go.Figure:
    """An empty figure in the report's style, `height` pixels high and as wide as the page."""
    return style(go.Figure(), height, **layout)


def style(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Put `figure` in the report's style; the page, which knows its theme, colours the text."""
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True}
    template = go.layout.Template(
        layout={
            "font": {"family": "system-ui, sans-serif", "size": 12},
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "colorway": COLORS,
            "hovermode": "closest",
            "xaxis": axis,
            "yaxis": axis,
            "bargap": 0.28,
            "margin": {"l": 60, "r": 16, "t": 30 if figure.layout.annotations else 10, "b": 50},
            "legend": {"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"},
            "hoverlabel": {"align": "left", "namelength": -1},
        }
    )
    figure.update_layout(template=template, height=height, **layout)
    figure.update_annotations(font_size=13)
    return figure


def label(text: str, limit: int = 44) -> str:
    """`text` cut to `limit` characters and escaped: Plotly reads HTML and "%{...}" in labels."""
    text = " ".join(str(text).split())
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return html.escape(text).replace("%{", "&#37;{")


def group_colors(groups: Sequence[RunGroup]) -> dict[str, str]:
    """A colour for each group label, the same in all figures; the two reference rows are grey.

    With more labels than colours, groups of one method share theirs.
    """
    named = [group for group in groups if group.method not in (UNTUNED, FULL)]
    by_label = len({group.label for group in named}) <= len(COLORS)
    keys = {group.label if by_label else group.method for group in named}
    ordered = sorted(keys, key=lambda key: (not key.startswith("s2l"), key))
    palette = {key: COLORS[i % len(COLORS)] for i, key in enumerate(ordered)}
    return {g.label: palette.get(g.label if by_label else g.method, GREY) for g in groups}


def legend_below(figure: go.Figure) -> go.Figure:
    """Make room under the axes for the legend, which has as many columns as its names allow."""
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    if not names:
        return figure
    columns = max(1, LEGEND_WIDTH // (45 + 7 * max(len(html.unescape(name)) for name in names)))
    room = 20 * -(-len(names) // columns)
    below = figure.layout.template.layout.margin.b
    return figure.update_layout(height=figure.layout.height + room, margin_b=below + room)


def named_ticks(axis: str, names: Sequence[str], *, limit: int = 44) -> dict[str, Any]:
    """Layout of a category axis at positions 0, 1, ...; cut names that look alike stay apart."""
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [label(name, limit) for name in names],
        "showgrid": False,
        "ticks": "outside",
        "ticklen": 6,
        "tickcolor": "rgba(0, 0, 0, 0)",
    }
    ends = [-0.5, len(names) - 0.5]
    return {axis: ticks | {"range": ends[::-1] if axis.startswith("yaxis") else ends}}  # first on top


def heatmap(z: list, hover: list, rows: Sequence[str], columns: Sequence[str], unit: str) -> Any:
    slanted = max(len(name) for name in columns) * len(columns) > 90
    top = min(max(len(name) for name in columns), 30) * 5 + 20 if slanted else 30
    figure = new_figure(top + 16 + 20 * len(rows), margin={"l": 60, "r": 16, "t": top, "b": 16})
    figure.add_trace(
        go.Heatmap(
            z=z,
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            xgap=1,
            ygap=1,
            colorbar={"thickness": 10, "len": 220, "lenmode": "pixels", "y": 1, "yanchor": "top"},
            name=unit,
        )
    )
    figure.update_layout(named_ticks("yaxis", rows) | named_ticks("xaxis", columns, limit=30))
    return figure.update_xaxes(side="top", tickangle=-40 if slanted else 0)
