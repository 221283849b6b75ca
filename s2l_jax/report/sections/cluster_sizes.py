"""How many examples clusters hold, and how many were picked from each."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np

from s2l_jax.report.findings import Findings
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import COLORS, FAINT, chart, series, sized, whole_numbers

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


def size_bars(selection: Mapping[str, Any]) -> Any:
    """Clusters from largest to smallest, and how many examples of each were picked."""
    sizes = np.asarray(selection["cluster_sizes"], dtype=np.int64)
    picked = selection.get("picked_per_cluster")
    order = np.argsort(-sizes, kind="stable")
    if len(order) > CLUSTER_BARS:
        order = order[np.linspace(0, len(order) - 1, CLUSTER_BARS).astype(int)]
    shown = {"in the pool": sizes}
    if picked is not None and len(picked) == len(sizes):
        shown["picked"] = np.asarray(picked, dtype=np.int64)
    # A few large clusters would flatten all others on a linear axis.
    skewed = sizes.max() > 20 * max(float(np.median(sizes)), 1.0)
    floor = 0.7 if skewed else 0
    rows = [
        {
            "x": rank - 0.46,
            "end": rank + 0.46,
            "y": int(counts[k]),
            "floor": floor,
            "name": name,
            "about": f"cluster {k}: {counts[k]:,} {name}",
        }
        for name, counts in shown.items()
        for rank, k in enumerate(order, start=1)
        if counts[k]
    ]
    scale = alt.Scale(type="log", domainMin=floor, nice=False) if skewed else alt.Scale()
    powers = [10**k for k in range(int(np.log10(max(sizes.max(), 1))) + 1)]
    axis = alt.Axis(values=powers, format=",.0f") if skewed else alt.Axis(format=",.0f")
    figure = (
        chart(rows)
        .mark_rect(clip=True)
        .encode(
            x=whole_numbers("clusters, largest first", domain=[0.4, len(order) + 0.6]),
            x2="end:Q",
            y=alt.Y("y:Q", title="examples", scale=scale, axis=axis),
            y2="floor:Q",
            color=series(list(shown), [FAINT, COLORS[0]]),
            tooltip="about:N",
        )
    )
    return sized(figure, 240)
