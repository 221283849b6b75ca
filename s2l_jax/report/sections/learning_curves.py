"""Training loss of the proxies and of all targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import FULL, RunGroup, RunResult, finite_number
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import (
    COLORS,
    DASHES,
    GREY,
    chart,
    group_colors,
    series,
    significant,
    sized,
    whole_numbers,
)

CURVE_POINTS = 150
FEW_RUNS = 9  # more curves than these are smoothed further, or they hide each other
CROWDED_POINTS = 40


@report_section("Learning curves", place=60)
def learning_curves(section: Section, found: Findings) -> None:
    """Training loss against the optimiser step: of all proxies, and of all targets."""
    section.intro = (
        "Training loss; long curves are averaged over equal runs of steps. Grey ticks mark the (first) "
        "proxy's checkpoints. Click the name of a target to see its curves alone."
    )
    proxies = _proxies(found)
    trained = [(group, run) for group in found.groups for run in group.runs]
    runs = [(g, run) for g, run in trained if (run.target.get("curve") or {}).get("step")]
    if not proxies and not runs:
        section.missing = "no model was trained"
        return
    if proxies:
        section.show(_proxy_curves(proxies, found.steps), title="proxy" if len(proxies) == 1 else "proxies")
    if runs:
        section.show(_target_curves(found, runs), title="targets")


def _proxies(found: Findings) -> dict[str, Mapping[str, Sequence[Any]]]:
    """Curves of the proxies that were trained, by where the workdir has them."""
    others = {f"{folder}/proxy": part.get("proxy") or {} for folder, part in found.part("proxies").items()}
    made = {"proxy": found.part("proxy"), **others}
    curves = {name: proxy.get("curve") or {} for name, proxy in made.items()}
    return {name: curve for name, curve in curves.items() if curve.get("step")}


def _proxy_curves(curves: Mapping[str, Mapping[str, Sequence[Any]]], steps: Sequence[int]) -> Any:
    rows = []
    for name, curve in curves.items():
        rows += [_point(name, a, b) | {"name": name} for a, b in zip(*thin_curve(curve), strict=True)]
    colors = [COLORS[place % len(COLORS)] for place in range(len(curves))]
    line = chart(rows).mark_line(strokeWidth=1.5)
    line = line.encode(x=_STEP, y=_LOSS, color=series(list(curves), colors), tooltip="about:N")
    if not 0 < len(steps) <= 60:
        return sized(line, 270)
    ticks = [{"x": step, "about": f"checkpoint at step {step:,}"} for step in steps]
    marks = chart(ticks).mark_tick(color=GREY, orient="vertical", size=8, thickness=2)
    marks = marks.encode(x=_STEP, y=alt.value(alt.ExprRef("height - 4")), tooltip="about:N")
    return sized(alt.layer(line, marks), 270)


def _target_curves(found: Findings, runs: Sequence[tuple[RunGroup, RunResult]]) -> Any:
    colors, rows = group_colors(found.groups), []
    budgets = sorted({g.budget or 0 for g, _ in runs if g.method != FULL})
    for group, run in runs:
        x, y = thin_curve(run.target["curve"], CURVE_POINTS if len(runs) <= FEW_RUNS else CROWDED_POINTS)
        rank = 0 if group.method == FULL else budgets.index(group.budget or 0)
        own = {"name": group.full_label, "run": run.name, "dash": rank % len(DASHES)}
        rows += [_point(run.name, a, b) | own for a, b in zip(x, y, strict=True)]
    shown = {group.full_label: colors[group.label] for group, _ in runs}
    picked = alt.selection_point(fields=["name"], bind="legend", name="named")
    dash = alt.Scale(domain=list(range(len(DASHES))), range=[list(each) for each in DASHES])
    figure = (
        chart(rows)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=_STEP,
            y=_LOSS,
            detail="run:N",
            color=series(list(shown), list(shown.values())),
            strokeDash=alt.StrokeDash("dash:N", scale=dash, legend=None),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.06)),
            tooltip="about:N",
        )
    )
    return sized(figure.add_params(picked), 270)


_STEP = whole_numbers("optimiser step", domainMin=0)
_LOSS = alt.Y("y:Q", title="training loss", scale=alt.Scale(zero=False))


def _point(name: str, step: float, loss: float) -> dict[str, Any]:
    return {"x": significant(step), "y": significant(loss), "about": f"{name}, step {step:,.0f}: {loss:.4f}"}


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
