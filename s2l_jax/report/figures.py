"""Figures of a run's scores, curves, clusters and times; each says why when it has none."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from s2l_jax.report.runs import (
    FULL,
    UNTUNED,
    RunGroup,
    charged_stages,
    finite_number,
)
from s2l_jax.report.style import (
    COLORS,
    DASHES,
    GREY,
    MARKERS,
    group_colors,
    label,
    legend_below,
    named_ticks,
    new_figure,
    style,
)
from s2l_jax.report.table import format_seconds

if TYPE_CHECKING:
    import plotly.graph_objects as go

CURVE_POINTS = 150
FEW_RUNS = 9  # more curves than these are smoothed further, or they hide each other
CROWDED_POINTS = 40
CLUSTER_BARS = 600


def score_bars(groups: Sequence[RunGroup]) -> "go.Figure | str":
    """Mean accuracy as bars and held-out loss as dots, one line per group, every seed a point."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = [
        (title, value, scale)
        for title, value, scale in (
            ("accuracy (%)", lambda run: run.accuracy, 100.0),
            ("held-out loss (nats per token)", lambda run: run.heldout_loss, 1.0),
        )
        if any(group.statistic(value) for group in groups)
    ]
    if not panels:
        return "no target was evaluated"
    rows = [g for g in groups if any(g.statistic(value) for _, value, _ in panels)]
    colors = group_colors(groups)
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
    return style(figure, 90 + 27 * len(rows))


def learning_curves(
    results: Mapping[str, Any], groups: Sequence[RunGroup], steps: Sequence[int]
) -> "go.Figure | str":
    """Training loss against the optimiser step: the proxy on the left, all targets on the right."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    proxy = (results.get("proxy") or {}).get("curve") or {}
    trained = [(group, run) for group in groups for run in group.runs]
    runs = [(g, run) for g, run in trained if (run.target.get("curve") or {}).get("step")]
    titles = [t for t, there in (("proxy", proxy.get("step")), ("targets", runs)) if there]
    if not titles:
        return "no model was trained"
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.07)
    if "proxy" in titles:
        x, y = thin_curve(proxy)
        hover = "step %{x:,}: %{y:.4f}<extra>proxy</extra>"
        line = go.Scatter(x=x, y=y, line={"color": COLORS[0], "width": 1.8}, hovertemplate=hover)
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
    colors = group_colors(groups)
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
    return legend_below(style(figure, 360))


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


def cluster_sizes(selection: Mapping[str, Any]) -> "go.Figure | str":
    """Clusters from largest to smallest, and how many examples of each were picked."""
    import plotly.graph_objects as go

    sizes = np.asarray(selection.get("cluster_sizes") or [], dtype=np.int64)
    if not len(sizes):
        return "no cluster sizes were recorded"
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


def stability(refreshes: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> "go.Figure | str":
    """Agreement of each refresh of the streaming clustering with the last one, and its inertia."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    if not refreshes:
        return "the clustering was not refreshed while the proxy trained"
    columns = [int(refresh["columns"]) for refresh in refreshes]
    known = all(0 < column <= len(steps) for column in columns)
    x = [int(steps[column - 1]) for column in columns] if known else columns
    panels = (
        ("adjusted Rand index with the refresh before", "adjusted_rand", COLORS[0]),
        ("inertia", "inertia", COLORS[1]),
    )
    figure = make_subplots(1, 2, subplot_titles=[p[0] for p in panels], horizontal_spacing=0.08)
    for column, (title, key, color) in enumerate(panels, start=1):
        y = np.array([finite_number(refresh.get(key)) for refresh in refreshes], dtype=np.float64)
        trace = go.Scatter(x=x, y=y, mode="lines+markers", line_color=color, showlegend=False)
        trace.hovertemplate = f"%{{y:.4g}} at %{{x:,}}<extra>{title}</extra>"
        figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="proxy step of the checkpoint" if known else "checkpoints")
    figure.update_yaxes(range=[-0.02, 1.05], row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    return style(figure, 300)


def cluster_counts(compared: Sequence[Mapping[str, Any]]) -> "go.Figure":
    """Inertia, silhouette and label stability against the number of clusters."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = ("inertia", "silhouette", "stability")
    figure = make_subplots(1, 3, subplot_titles=panels, horizontal_spacing=0.07)
    x = [found["num_clusters"] for found in compared]
    for column, key in enumerate(panels, start=1):
        y = [finite_number(found.get(key)) for found in compared]
        trace = go.Scatter(x=x, y=y, mode="lines+markers", line_color=COLORS[column - 1], showlegend=False)
        trace.hovertemplate = f"%{{y:.4g}} with K = %{{x:,}}<extra>{key}</extra>"
        figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="clusters", type="log", tickvals=x, ticktext=[f"{k:,}" for k in x])
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    return style(figure, 280)


def time_bars(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> "go.Figure | str":
    """Seconds behind each group's result: proxy and sweeps (where used), selection, target."""
    import plotly.graph_objects as go

    timing = results.get("timing") or {}
    rows = [g for g in groups if any(r.selection or r.target for r in g.runs)]
    parts: list[tuple[str, str, list[float | None]]] = []
    for name, key, color in (
        ("proxy", "proxy", COLORS[0]),
        ("trajectory sweeps", "trajectories", COLORS[6]),
        ("selection", "selection/{}", COLORS[4]),
        ("target", "target/{}", COLORS[1]),
    ):
        seconds = [_mean_time(timing, key, group) for group in rows]
        if any(value is not None for value in seconds):
            parts.append((name, color, seconds))
    if not parts:
        return "no times were measured"
    figure = new_figure(90 + 27 * len(rows), barmode="stack", legend_traceorder="normal")
    for name, color, seconds in parts:
        text = [f"{name}: {format_seconds(s)}" if s is not None else "" for s in seconds]
        figure.add_trace(
            go.Bar(
                x=seconds,
                y=list(range(len(rows))),
                orientation="h",
                name=name,
                marker_color=color,
                hovertext=text,
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.update_layout(named_ticks("yaxis", [g.full_label for g in rows]))
    return legend_below(figure.update_xaxes(title_text="seconds"))


def _mean_time(timing: Mapping[str, Any], key: str, group: RunGroup) -> float | None:
    if key in ("proxy", "trajectories"):
        uses = key in charged_stages(group.method) and any(r.selection for r in group.runs)
        return finite_number(timing.get(key)) if uses else None
    found = group.statistic(lambda run: timing.get(key.format(run.name)))
    return found.mean if found else None
