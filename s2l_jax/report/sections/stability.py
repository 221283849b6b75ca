"""How the clustering changed from one checkpoint to the next."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import line_panels, style

STABLE_RAND_INDEX = 0.95


@report_section("When the clustering settled", place=100)
def stability(section: Section, found: Findings) -> None:
    """Agreement of each refresh of the streaming clustering with the last one, and its inertia."""
    refreshes, steps = found.part("trajectories").get("refreshes") or [], found.steps
    section.intro = (
        "The clustering is refreshed at every checkpoint. Where its agreement with the refresh "
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
    figure = line_panels(x, values, "at", 0.08)
    figure.update_xaxes(title_text="proxy step of the checkpoint" if known else "checkpoints")
    figure.update_yaxes(range=[-0.02, 1.05], row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    section.show(style(figure, 300))


def _settled(refreshes: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> str:
    """A sentence on the checkpoint after which no refresh moved much."""
    known = [(r, a) for r in refreshes if (a := finite_number(r.get("adjusted_rand"))) is not None]
    first = len(known)
    while first and known[first - 1][1] >= STABLE_RAND_INDEX:
        first -= 1
    if first == len(known):
        return f" It was still below {STABLE_RAND_INDEX} at the last refresh." if known else ""
    column = int(known[first][0]["columns"])
    place = f", step {steps[column - 1]:,}" if 0 < column <= len(steps) else ""
    return f" It stayed at {STABLE_RAND_INDEX} or above from checkpoint {column}{place} on."
