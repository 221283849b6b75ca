"""The explorer: pick a cluster or a row and see it; the figures that its script fills are described here."""

from typing import Any

import altair as alt

from s2l_jax.report.explorer import explore
from s2l_jax.report.findings import Findings
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import COLORS, GREY, sized, whole_numbers


@report_section("Explorer", place=18)
def explorer(section: Section, found: Findings) -> None:
    """A map of rows, a list of clusters, and what is in the one that is picked."""
    content = explore(found)
    if isinstance(content, str):
        section.missing = content
        return
    shown = len(content["row"])
    which = "All rows"
    if shown < content["total"]:
        which = f"{shown:,} of {content['total']:,} rows (some of every cluster, the others at random)"
    section.intro = (
        f"{which}, each a point: near each other are rows whose losses went alike. Pick a cluster in the "
        "list or a point on the map to see its trajectories and its rows, taken and left."
    )
    if content["texts"] is None:
        section.intro += " Texts are left out (report.texts=False, or a pool that is not at hand)."
    section.template, section.script = "explorer.html", "explorer.js"
    section.data = {
        "data": content,
        "map-spec": map_figure().to_dict(validate=False),
        "curves-spec": curves_figure().to_dict(validate=False),
    }


def map_figure() -> Any:
    """Points of `rows`: x, y, the colour that the script gives each, whether it is faint, and what it is."""
    axis = alt.Axis(labels=False, ticks=False, grid=False, domain=False, title=None)
    points = alt.Chart(alt.NamedData("rows")).mark_circle(size=22)
    # A few rows are far from all others.
    scale = alt.Scale(type="symlog", constant=0.2, zero=False, nice=False)
    x, y = alt.X("x:Q", axis=axis, scale=scale), alt.Y("y:Q", axis=axis, scale=scale)
    return sized(
        points.encode(
            x=x,
            y=y,
            color=alt.Color("color:N", scale=None),
            opacity=alt.Opacity("opacity:Q", scale=None),
            size=alt.Size("size:Q", scale=None),
            order="order:Q",
            tooltip="about:N",
        ),
        330,
    )


def curves_figure() -> Any:
    """All clusters' means, the rows of the picked one (taken or left), its mean, and the picked row."""
    step = whole_numbers("proxy step")
    # Most losses are small and a few are large.
    loss = alt.Y("y:Q", title="loss (nats per token)", scale=alt.Scale(type="sqrt"))
    scale = alt.Scale(domain=["taken", "left"], range=[COLORS[0], COLORS[1]])
    means = alt.Chart(alt.NamedData("means")).mark_line(color=GREY, opacity=0.22, strokeWidth=1)
    rows = alt.Chart(alt.NamedData("rows")).mark_line(opacity=0.45, strokeWidth=1)
    mean = alt.Chart(alt.NamedData("mean")).mark_line(strokeWidth=3.2, color=GREY)
    one = alt.Chart(alt.NamedData("one")).mark_line(strokeWidth=2.4, color=COLORS[3])
    own = alt.Color("taken:N", scale=scale, legend=alt.Legend())
    layers = [
        means.encode(x=step, y=loss, detail="line:N", tooltip="about:N"),
        rows.encode(x=step, y=loss, detail="line:N", color=own, tooltip="about:N"),
        mean.encode(x=step, y=loss, tooltip="about:N"),
        one.encode(x=step, y=loss, tooltip="about:N"),
    ]
    return sized(alt.layer(*layers), 270)
