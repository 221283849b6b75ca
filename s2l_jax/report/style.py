"""One look for all figures: colours, axes that suit light and dark pages, and how figures are built.

Figures are Vega-Lite specifications, made with Altair. The page draws them in the reader's browser, and
`page.write_figures` as SVG files, from the same specification; the theme alone differs. Names of sources,
runs and the like are values in them, never part of a field's name or of an expression.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from s2l_jax.report.runs import FULL, UNTUNED, RunGroup

# After Okabe and Ito's palette, which colour-blind readers tell apart; moved to be seen on dark, too.
COLORS = (
    "#2b7fc3",
    "#e08e0b",
    "#16a07c",
    "#cf5f9e",
    "#c8501e",
    "#59aee0",
    "#8a6fd1",
    "#a08a17",
)
GREY = "#8a8f98"
FAINT = "#8a8f988c"  # the same, see-through
SOURCE_ROWS = 60  # sources that a heatmap shows
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 4])
ROW = 26  # pixels of a named line

# See-through on purpose: cells take on the page behind them and carry its text colour.
SEQUENTIAL = ("#2b7fc30a", "#2b7fc3c7")
DIVERGING = ("#d0682c", "#80808014", "#2a62b2")

# What text, secondary text and lines are coloured with: by the page's own style sheet, or on paper.
ON_PAGE = {"text": "var(--text)", "quiet": "var(--quiet)", "line": "var(--grid)", "background": "transparent"}
ON_PAPER = {"text": "#24272d", "quiet": "#5b616b", "line": "#dcdcd8", "background": "#ffffff"}
# How wide a figure is before it is laid out, in an expression; a file has no container.
_WIDTH = "(containerSize()[0] || 720)"
_FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


def theme(colors: Mapping[str, str]) -> dict[str, Any]:
    """The configuration that all figures are drawn with."""
    text = {"labelColor": colors["text"], "titleColor": colors["quiet"]}
    return {
        "background": colors["background"],
        "font": _FONT,
        "view": {"stroke": None},
        "text": {"color": colors["text"]},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "gridColor": colors["line"],
            "domainColor": colors["line"],
            "tickColor": colors["line"],
            "labelFontSize": 11,
            "titleFontSize": 12,
            "labelOverlap": True,
        },
        "axisY": {"labelLimit": {"expr": f"{_WIDTH} < 520 ? 110 : 260"}},
        "legend": {
            **text,
            "orient": "bottom",
            "direction": "horizontal",
            "title": None,
            "labelFontSize": 12,
            "labelLimit": 280,
            "symbolStrokeWidth": 3,
        },
        "range": {"category": list(COLORS)},
    }


def chart(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A chart of rows of data."""
    return alt.Chart(alt.Data(values=list(rows)))


def sized(figure: Any, height: int) -> Any:
    """`figure`, as wide as what it stands in and `height` pixels high."""
    autosize = alt.AutoSizeParams(type="fit-x", contains="padding")
    return figure.properties(width="container", height=height, autosize=autosize)


def significant(value: float | None, digits: int = 5) -> float | None:
    """A number short enough for the page; None, a gap, where it is missing or not finite."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.{digits}g}")


def names_axis(names: Sequence[str], field: str = "name") -> alt.Y:
    """A vertical axis of names, the first on top; long ones are cut as they are drawn."""
    axis = alt.Axis(domain=False, ticks=False, grid=False, labelPadding=6, labelOverlap=False)
    return alt.Y(f"{field}:N", title=None, axis=axis, scale=alt.Scale(domain=list(names)))


def series(names: Sequence[str], colors: Sequence[str], field: str = "name") -> alt.Color:
    """Colours by name, with a legend under the figure that has as many columns as fit its width."""
    room = 52 + 7 * min(40, max((len(name) for name in names), default=1))
    columns = alt.ExprRef(f"max(1, floor(({_WIDTH} - 130) / {room}))")
    # Padded, as a reader whose font is wider than the one it was laid out with would see names overlap.
    legend = alt.Legend(columns=columns, columnPadding=28) if len(names) > 1 else None
    scale = alt.Scale(domain=list(names), range=list(colors))
    return alt.Color(f"{field}:N", scale=scale, legend=legend)


def whole_numbers(title: str, field: str = "x", **scale: Any) -> alt.X:
    """A horizontal axis of counts, such as steps."""
    axis = alt.Axis(format=",.0f", tickCount=alt.ExprRef("ceil(width / 90)"), grid=False)
    return alt.X(f"{field}:Q", title=title, axis=axis, scale=alt.Scale(nice=False, **scale))


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


def heatmap(
    cells: Sequence[Mapping[str, Any]], rows: Sequence[str], columns: Sequence[str], color: alt.Color
) -> Any:
    """Rows against columns; cells have `row`, `column`, `value`, `about` and, if it is written, `text`."""
    upright = max(len(name) for name in columns) * len(columns) > 40
    heading = {"labelAngle": -90, "labelAlign": "left"} if upright else {"labelAngle": 0}
    axis = alt.Axis(orient="top", **heading, labelLimit=150, domain=False, ticks=False, labelOverlap=False)
    base = chart(cells).encode(
        x=alt.X("column:N", title=None, axis=axis, scale=alt.Scale(domain=list(columns), paddingInner=0.04)),
        y=names_axis(rows, "row"),
        tooltip="about:N",
    )
    size = alt.ExprRef(f"width / {len(columns)} < 30 ? 8 : 11")
    text = base.mark_text(fontSize=size).encode(text="text:N")
    layers = [base.mark_rect(cornerRadius=2).encode(color=color)]
    return sized(alt.layer(*layers, *([text] if any(c.get("text") for c in cells) else [])), 21 * len(rows))
