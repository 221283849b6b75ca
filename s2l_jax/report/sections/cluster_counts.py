"""What other numbers of clusters would have given."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import COLORS, style


@report_section("Other numbers of clusters", place=110)
def cluster_counts(section: Section, found: Findings) -> None:
    """Inertia, silhouette and label stability against the number of clusters, where they were asked for."""
    if not (compared := found.results.get("cluster_counts")):
        return
    section.intro = (
        "All trajectories clustered with several K, from several first centroids each. Inertia falls with "
        "every cluster: look for where it falls less. The silhouette (on a sample) says how well clusters "
        "are separated, stability how alike labels from other first centroids are (adjusted Rand index)."
    )
    panels = ("inertia", "silhouette", "stability")
    figure = make_subplots(1, 3, subplot_titles=panels, horizontal_spacing=0.07)
    x = [fit["num_clusters"] for fit in compared]
    for column, key in enumerate(panels, start=1):
        y = [finite_number(fit.get(key)) for fit in compared]
        trace = go.Scatter(x=x, y=y, mode="lines+markers", line_color=COLORS[column - 1], showlegend=False)
        trace.hovertemplate = f"%{{y:.4g}} with K = %{{x:,}}<extra>{key}</extra>"
        figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="clusters", type="log", tickvals=x, ticktext=[f"{k:,}" for k in x])
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    section.show(style(figure, 280))
