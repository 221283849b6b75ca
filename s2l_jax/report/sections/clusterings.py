"""How clusterings compare: from one checkpoint to the next, and with other numbers of clusters."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import COLORS, chart, significant, sized, whole_numbers

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
    title = "proxy step of the checkpoint" if known else "checkpoints"
    for place, (key, name, scale) in enumerate(_REFRESHED):
        values = [finite_number(refresh.get(key)) for refresh in refreshes]
        section.show(_line(x, values, whole_numbers(title), scale, place), title=name)


_REFRESHED = (
    ("adjusted_rand", "adjusted Rand index with the refresh before", alt.Scale(domain=[0, 1])),
    ("inertia", "inertia", alt.Scale(zero=True)),
)


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
    axis = alt.Axis(values=x, format=",.0f", labelOverlap=True)
    horizontal = alt.X("x:Q", title="clusters", axis=axis, scale=alt.Scale(type="log", nice=False))
    for place, name in enumerate(("inertia", "silhouette", "stability")):
        values = [finite_number(fit.get(name)) for fit in compared]
        section.show(_line(x, values, horizontal, alt.Scale(zero=name == "inertia"), place), title=name)


def _line(x: Sequence[float], y: Sequence[float | None], axis: alt.X, scale: alt.Scale, place: int) -> Any:
    rows = [{"x": a, "y": significant(b)} for a, b in zip(x, y, strict=True)]
    tips = [alt.Tooltip("x:Q", title="at", format=",.0f"), alt.Tooltip("y:Q", title="value", format=".4~g")]
    line = chart(rows).mark_line(color=COLORS[place], point={"color": COLORS[place], "size": 40})
    return sized(line.encode(x=axis, y=alt.Y("y:Q", title=None, scale=scale), tooltip=tips), 200)
