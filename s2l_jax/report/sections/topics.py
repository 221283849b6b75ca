"""How much of each cluster is of one source, after figure 6 of the S2L paper."""

from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from s2l_jax.report.findings import Findings
from s2l_jax.report.purity import largest_shares
from s2l_jax.report.runs import clustered_needs
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import COLORS, chart, series, significant, sized, whole_numbers

_SHOWN = len(COLORS)
_FEATURES = {"trajectories": "loss trajectories", "hidden_states": "embeddings"}


@report_section("Share of the largest source in each cluster", place=85)
def topics(section: Section, found: Findings) -> None:
    """A line for each clustering of all sources together: clusters from the purest to the most mixed."""
    shares = {name: share for name, share in _shares(found).items() if (share < 1).any()}
    if not shares:
        return
    section.intro = (
        "Clusters from the one that is most of one source to the most mixed; in brackets the share of all "
        "rows that are of their cluster's largest source. Clusterings of each source on its own are left out."
    )
    section.show(topics_figure(shares))


def _shares(found: Findings) -> dict[str, Float[np.ndarray, " k"]]:
    rows = found.rows
    if rows is None or rows.sources is None:
        return {}
    codes, names = rows.source_codes()
    firsts = [group.runs[0].name for group in found.groups]
    of = {name: what for name in firsts if name in found.clustered and (what := _clustered(found, name))}
    return {
        f"{name}: {of[name]} ({overall:.0f} %)": share
        for name in list(of)[:_SHOWN]
        for share, overall in [largest_shares(found.labels[name], codes, len(names))]
    }


def _clustered(found: Findings, name: str) -> str:
    """What a selection clustered, in words; empty for a method whose groups of rows are no clusters."""
    selection = found.part("selections")[name]
    if (needs := clustered_needs(selection)) is None:
        return "clusters of a method that is not installed"
    own = (selection.get("options") or {}).get("features")
    what = [own] if own and needs else needs  # "loss_falls" says more than that they are of trajectories
    return " and ".join(_FEATURES.get(each, each.replace("_", " ")) for each in what)


def topics_figure(shares: dict[str, Float[np.ndarray, " k"]]) -> Any:
    """Shares against the rank of the cluster, a line for each clustering."""
    rows = [
        {
            "name": name,
            "x": significant(100 * (rank + 1) / len(share)),
            "y": significant(100 * float(value), 4),
        }
        for name, share in shares.items()
        for rank, value in enumerate(share)
    ]
    lines = chart(rows).mark_line(interpolate="step-before")
    encoded = lines.encode(
        x=whole_numbers("clusters, purest first (%)", domain=[0, 100]),
        y=alt.Y("y:Q", title="largest source (% of the cluster)", scale=alt.Scale(domain=[0, 100])),
        color=series(list(shares), list(COLORS[: len(shares)])),
    )
    return sized(encoded, 240)
