"""Training loss of the proxy and of all targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from s2l_jax.report.runs import FULL, finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import COLORS, DASHES, GREY, group_colors, label, legend_below, style

CURVE_POINTS = 150
FEW_RUNS = 9  # more curves than these are smoothed further, or they hide each other
CROWDED_POINTS = 40


@report_section("Learning curves", place=60)
def learning_curves(section: Section, found: Findings) -> None:
    """Training loss against the optimiser step: the proxy on the left, all targets on the right."""
    section.intro = (
        "Training loss; long curves are averaged over equal runs of steps. Grey ticks mark the "
        "proxy's checkpoints. Click a name to hide its curves."
    )
    proxy, steps = found.part("proxy").get("curve") or {}, found.steps
    trained = [(group, run) for group in found.groups for run in group.runs]
    runs = [(g, run) for g, run in trained if (run.target.get("curve") or {}).get("step")]
    titles = [t for t, there in (("proxy", proxy.get("step")), ("targets", runs)) if there]
    if not titles:
        section.missing = "no model was trained"
        return
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.07)
    if "proxy" in titles:
        own = {f"proxy of seed {s}": each.get("proxy") for s, each in found.part("replicates").items()}
        for name, curve in {**{n: each["curve"] for n, each in own.items() if each}, "proxy": proxy}.items():
            x, y = thin_curve(curve)
            width = 1.8 if name == "proxy" else 0.9
            hover = f"step %{{x:,}}: %{{y:.4f}}<extra>{name}</extra>"
            line = go.Scatter(x=x, y=y, line={"color": COLORS[0], "width": width}, hovertemplate=hover)
            figure.add_trace(line.update(showlegend=False), row=1, col=1)
        if 0 < len(steps) <= 60:
            ticks = {"symbol": "line-ns-open", "size": 9, "color": GREY}
            figure.add_trace(
                go.Scatter(
                    x=list(steps),
                    y=[float(np.nanmin(y)) if np.isfinite(y).any() else 0.0] * len(steps),
                    mode="markers",
                    marker=ticks,
                    hovertemplate="checkpoint at step %{x:,}<extra></extra>",
                    showlegend=False,
                ),
                row=1,
                col=1,
            )
    colors = group_colors(found.groups)
    budgets = sorted({g.budget or 0 for g, _ in runs if g.method != FULL})
    drawn = set()
    for group, run in runs:
        x, y = thin_curve(run.target["curve"], CURVE_POINTS if len(runs) <= FEW_RUNS else CROWDED_POINTS)
        rank = 0 if group.method == FULL else budgets.index(group.budget or 0)
        dash = DASHES[rank % len(DASHES)]
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                name=label(group.full_label),
                legendgroup=group.full_label,
                showlegend=group.full_label not in drawn,
                line={"color": colors[group.label], "width": 1.4, "dash": dash},
                hovertemplate=f"step %{{x:,}}: %{{y:.4f}}<extra>{label(run.name)}</extra>",
            ),
            row=1,
            col=len(titles),
        )
        drawn.add(group.full_label)
    figure.update_xaxes(title_text="optimiser step", rangemode="tozero")
    figure.update_yaxes(title_text="training loss", col=1)
    section.show(legend_below(style(figure, 360)))


def thin_curve(
    curve: Mapping[str, Sequence[Any]], limit: int = CURVE_POINTS
) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "p"]]:
    """At most `limit` points of a curve: means over equal runs of steps, NaN without a number."""
    loss = np.array([finite_number(v) for v in curve.get("loss", [])], dtype=np.float64)
    step = np.asarray(curve.get("step", []), dtype=np.float64)[: len(loss)]
    loss = loss[: len(step)]
    if len(step) <= limit:
        return step, loss
    bounds = np.linspace(0, len(step), limit + 1).astype(int)[:-1]
    known = np.isfinite(loss)
    count = np.add.reduceat(known.astype(np.float64), bounds)
    total = np.add.reduceat(np.where(known, loss, 0.0), bounds)
    width = np.diff(np.append(bounds, len(step)))
    mean = np.divide(total, count, out=np.full(limit, np.nan), where=count > 0)
    return np.add.reduceat(step, bounds) / width, mean
