"""How many examples clusters hold, and how many were picked from each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import COLORS, legend_below, new_figure

CLUSTER_BARS = 600


@report_section("Cluster sizes", place=80)
def cluster_sizes(section: Section, found: Findings) -> None:
    """A view for each selection that clustered the pool."""
    section.intro = (
        "Grey is what a cluster holds, blue what was picked from it. Balanced sampling aims at the "
        "same number from every cluster of a source, or of the pool if it was not stratified."
    )
    section.missing = "no selection clustered the pool"
    for name, selection in found.part("selections").items():
        if selection.get("cluster_sizes"):
            section.show(size_bars(selection), name)


def size_bars(selection: Mapping[str, Any]) -> go.Figure:
    """Clusters from largest to smallest, and how many examples of each were picked."""
    sizes = np.asarray(selection["cluster_sizes"], dtype=np.int64)
    picked = selection.get("picked_per_cluster")
    order = np.argsort(-sizes, kind="stable")
    if len(order) > CLUSTER_BARS:
        order = order[np.linspace(0, len(order) - 1, CLUSTER_BARS).astype(int)]
    rank = np.arange(1, len(order) + 1)
    gap = 0.15 if len(order) <= 60 else 0.0
    figure = new_figure(310, barmode="overlay", bargap=gap)
    series = [("in the pool", sizes, "rgba(138, 143, 152, 0.55)")]
    if picked is not None and len(picked) == len(sizes):
        series.append(("picked", np.asarray(picked, dtype=np.int64), COLORS[0]))
    for name, counts, color in series:
        figure.add_trace(
            go.Bar(
                x=rank,
                y=counts[order],
                name=name,
                marker={"color": color, "line": {"width": 0}},
                customdata=order,
                hovertemplate=f"cluster %{{customdata}}: %{{y:,}} {name}<extra></extra>",
            )
        )
    # A few large clusters would flatten all others on a linear axis.
    skewed = sizes.max() > 20 * max(float(np.median(sizes)), 1.0)
    figure.update_yaxes(title_text="examples")
    if skewed:
        highest = float(np.log10(sizes.max())) + 0.1
        figure.update_yaxes(type="log", dtick=1, range=[float(np.log10(0.7)), highest])
    figure.update_xaxes(title_text="clusters, largest first", showgrid=False)
    return legend_below(figure)
