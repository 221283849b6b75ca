"""Whether trajectories tell of gradients: Theorem 4.1 and Corollary 4.2 of arXiv 2403.07384, as measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from s2l_jax.report.findings import Findings
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import COLORS, GREY, chart, series, significant, sized
from s2l_jax.report.table import NOT_MEASURED


@report_section("Do trajectories tell of gradients?", place=115)
def theory(section: Section, found: Findings) -> None:
    """Distances of gradients against those of trajectories, and errors of subsets' gradients."""
    if not (measured := found.part("theory")):
        return
    constants = measured["constants"]
    section.intro = (
        f"Gradients of {measured['num_rows']:,} rows, {measured['num_clusters']:,} whole clusters of "
        f"{measured['run']}, in a target trained on the whole pool. Correlations and shares are within "
        "sources; by chance is the mean over random groups of the same sizes. Errors are those of a subset's "
        f"mean gradient, relative to the length of that of all these rows, for {measured['num_taken']:,} of "
        f"them; strokes hold nine in ten random draws. {_constants(constants)}"
    )
    checkpoints = measured["checkpoints"]
    if curves := [point for checkpoint in checkpoints for point in _curve(checkpoint)]:
        section.show(_curves(curves), title="distance of gradients against distance of trajectories")
    if errors := [point for checkpoint in checkpoints for point in _errors(checkpoint)]:
        section.show(_error_figure(errors), title="error of a subset's gradient")
    section.header = _HEADER
    section.rows = [_cells(checkpoint) for checkpoint in checkpoints]


_HEADER = (
    "target step",
    "rank correlation",
    "cosine in a cluster",
    "cosine between clusters of a source",
    "variance explained",
    "by chance",
    "of directions",
    "by chance",
)


def _constants(constants: Mapping[str, Any]) -> str:
    if not constants["epsilon"] or not constants["delta"]:
        return ""
    correlation = constants["proxy_target_rank_correlation"]
    known = "" if correlation is None else f"; distances by both have a rank correlation of {correlation:.2f}"
    between = constants["between_clusters"]
    apart = "" if between is None else f", {between['mean']:.2f} between clusters of a source"
    return (
        f"Trajectories of a cluster are {constants['epsilon']['mean']:.2f} apart in the mean (epsilon; the "
        f"largest {constants['epsilon']['largest']:.2f}){apart}; a row's by proxy and by target "
        f"{constants['delta']['mean']:.2f} (delta; the largest {constants['delta']['largest']:.2f}){known}."
    )


def _curve(checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    curve = checkpoint["curve"]
    if not curve:
        return []
    middle = sum(curve["gradients"]) / len(curve["gradients"])
    return [
        {
            "name": f"step {checkpoint['step']:,}",
            "x": significant(x),
            "y": significant(y / middle if middle else None),
        }
        for x, y in zip(curve["trajectories"], curve["gradients"], strict=True)
        if x > 0
    ]


def _curves(rows: Sequence[Mapping[str, Any]]) -> Any:
    names = list(dict.fromkeys(row["name"] for row in rows))
    encoded = chart(rows).mark_line(point={"size": 24}).encode(
        x=alt.X("x:Q", title="distance of the proxy's trajectories (nats)", scale=alt.Scale(type="log")),
        y=alt.Y("y:Q", title="distance of gradients, of the mean", scale=alt.Scale(zero=True)),
        color=series(names, [COLORS[i % len(COLORS)] for i in range(len(names))]),
    )  # fmt: skip
    return sized(encoded, 260)


_DRAWS = {
    "random": "random rows",
    "by_source_plain": "random by source",
    "by_source_weighted": "random by source, weighted",
    "by_cluster_plain": "from the clusters",
    "by_cluster_weighted": "from the clusters, weighted",
}


def _errors(checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    errors = checkpoint["errors"]
    return [
        {"name": title, "x": checkpoint["step"]}
        | {key: significant(errors[name][key]) for key in ("mean", "low", "high")}
        | {"about": f"{title}, step {checkpoint['step']:,}: {errors[name]['mean']:.3g}"}
        for name, title in _DRAWS.items()
        if errors[name]
    ]


def _error_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A dot and a stroke for each kind of draw, side by side at each checkpoint."""
    names = [title for title in _DRAWS.values() if any(row["name"] == title for row in rows)]
    base = chart(rows).encode(
        x=alt.X("x:O", title="target step", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("name:N", sort=names),
        color=series(names, [GREY, *COLORS][: len(names)]),
        tooltip="about:N",
    )
    title = "error, of the mean gradient"
    strokes = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    dots = base.mark_circle(size=70, opacity=1).encode(y=alt.Y("mean:Q", title=title))
    return sized(alt.layer(strokes, dots), 280)


def _cells(checkpoint: Mapping[str, Any]) -> list[str]:
    distances = checkpoint["distances"]
    shares = [checkpoint[name] for name in ("explained", "explained_directions")]
    return [
        f"{checkpoint['step']:,}",
        _number(checkpoint["rank_correlation"], "+.2f"),
        _number(distances["within"].get("cosine"), "+.2f"),
        _number(distances["between"].get("cosine"), "+.2f"),
        *(_number(share[key], ".1%") for share in shares for key in ("share", "by_chance")),
    ]


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else f"{value:{form}}"
