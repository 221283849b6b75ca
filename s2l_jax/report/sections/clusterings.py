"""How clusterings compare: from one checkpoint to the next, and with other numbers of clusters."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import COLORS, style

_STABLE = 0.95


@report_section("When the clustering settled", place=100)
def stability(section: Section, found: Findings) -> None:
    """Agreement of each refresh of the streaming clustering with the last one, and its inertia."""
    refreshes, steps = found.part("trajectories").get("refreshes") or [], found.steps
    section.intro = (
        "The clustering (of each source on its own, unless the run said selection.stratify_by='none') is "
        "refreshed at every checkpoint. Where its agreement with the refresh "
        "before stays near 1, later checkpoints changed little." + _settled(refreshes, steps)
    )
    if not refreshes:
        section.missing = "the clustering was not refreshed while the proxy trained"
        return
    columns = [int(refresh["columns"]) for refresh in refreshes]
    known = all(0 < column <= len(steps) for column in columns)
    x = [int(steps[column - 1]) for column in columns] if known else columns
    titles = {"adjusted_rand": "adjusted Rand index with the refresh before", "inertia": "inertia"}
    values = {
        title: np.array([finite_number(refresh.get(key)) for refresh in refreshes], dtype=np.float64)
        for key, title in titles.items()
    }
    figure = _panels(x, values, "at", 0.08)
    figure.update_xaxes(title_text="proxy step of the checkpoint" if known else "checkpoints")
    figure.update_yaxes(range=[-0.02, 1.05], row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    section.show(style(figure, 300))


def _settled(refreshes: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> str:
    """A sentence on the checkpoint after which no refresh moved much."""
    known = [(r, a) for r in refreshes if (a := finite_number(r.get("adjusted_rand"))) is not None]
    first = len(known)
    while first and known[first - 1][1] >= _STABLE:
        first -= 1
    if first == len(known):
        return f" It was still below {_STABLE} at the last refresh." if known else ""
    column = int(known[first][0]["columns"])
    place = f", step {steps[column - 1]:,}" if 0 < column <= len(steps) else ""
    return f" It stayed at {_STABLE} or above from checkpoint {column}{place} on."


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
    x = [fit["num_clusters"] for fit in compared]
    measures = ("inertia", "silhouette", "stability")
    panels = {name: [finite_number(fit.get(name)) for fit in compared] for name in measures}
    figure = _panels(x, panels, "with K =", 0.07)
    figure.update_xaxes(title_text="clusters", type="log", tickvals=x, ticktext=[f"{k:,}" for k in x])
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    section.show(style(figure, 280))


def _panels(x: Sequence[float], panels: Mapping[str, Any], at: str, spacing: float) -> go.Figure:
    """Lines side by side against the same `x`, by title; `at` says on hovering where a point is."""
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=spacing)
    for column, (title, y) in enumerate(panels.items(), start=1):
        trace = go.Scatter(x=x, y=y, mode="lines+markers", line_color=COLORS[column - 1], showlegend=False)
        trace.hovertemplate = f"%{{y:.4g}} {at} %{{x:,}}<extra>{title}</extra>"
        figure.add_trace(trace, row=1, col=column)
    return figure
