"""Loss trajectories within one cluster and across clusters, after figure 2 of the S2L paper."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float, Int

from s2l_jax.report.findings import Findings
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.style import COLORS, FAINT, chart, significant, sized, whole_numbers

SAMPLED_ROWS = 20_000
SHOWN_CLUSTERS = 5
MEAN_CURVES = 60
CURVES_PER_CLUSTER = 20
MAX_COLUMNS = 120


@report_section("Loss trajectories within and across clusters", place=70)
def trajectories(section: Section, found: Findings) -> None:
    """Clusters of the first selection that has some."""
    if found.trajectories is None or not found.trajectories.shape[1]:
        section.missing = "no trajectories were recorded"
        return
    clustered = found.clustered_losses
    if not clustered:
        section.missing = "no selection clustered the trajectories"
        return
    name = clustered[0]
    sample = sample_trajectories(found.trajectories, found.labels[name])
    section.intro = (
        f"Clusters of {name}. First the mean loss of clusters over the proxy's training; then "
        "some of them from the inside, from the one whose loss fell most to the one whose loss "
        "fell least: sampled examples, the mean and one standard deviation; the cluster's size is "
        f"in brackets. Drawn from {len(sample.rows):,} of {sample.num_examples:,} examples."
    )
    shown = found.part("trajectories")
    if (seed := shown.get("seed")) is not None:
        which = f"proxy {shown['proxy']}" if shown.get("proxy") else "the config's own proxy"
        section.intro += f" There are several proxies; these are losses of {which}, of seed {seed}."
    if explained := sample.explained():
        section.intro += (
            f" The clusters account for {100 * explained[0]:.1f} % of the variance of these "
            f"trajectories; as many random groups would for {100 * explained[1]:.2g} %."
        )
    panels = trajectory_panels(sample, found.steps)
    if not panels:
        section.missing = "no example has a trajectory"
    for title, figure in panels:
        section.show(figure, title=title)


@dataclasses.dataclass(frozen=True)
class TrajectorySample:
    """A random sample of the clustered trajectories, small enough to draw.

    Rows without a loss (all zeros), with a value that is not finite, or without a cluster (a
    negative label) are left out.
    """

    rows: Float[np.ndarray, "s t"]
    labels: Int[np.ndarray, "s"]
    sizes: Int[np.ndarray, "k"]  # examples of each cluster in the whole pool
    num_examples: int

    def means(self) -> tuple[Float[np.ndarray, "k t"], Int[np.ndarray, "k"]]:
        """Mean trajectory of each cluster (NaN without a sampled row), and its sampled rows."""
        counts = np.bincount(self.labels, minlength=len(self.sizes))
        sums = np.zeros((len(self.sizes), self.rows.shape[1]))
        np.add.at(sums, self.labels, self.rows)
        with np.errstate(invalid="ignore"):
            return sums / counts[:, None], counts

    def explained(self) -> tuple[float, float] | None:
        """Share of the variance between clusters, and what random groups would reach."""
        means, counts = self.means()
        total = float(((self.rows - self.rows.mean(axis=0)) ** 2).sum()) if len(self.rows) else 0.0
        if total <= 0 or len(self.rows) < 3:
            return None
        within = float(((self.rows - means[self.labels]) ** 2).sum())
        return 1 - within / total, (np.count_nonzero(counts) - 1) / (len(self.rows) - 1)


def sample_trajectories(
    trajectories: Float[np.ndarray, "n t"],
    labels: Int[np.ndarray, "n"],
    *,
    seed: int = 0,
    limit: int = SAMPLED_ROWS,
) -> TrajectorySample:
    """Draw at most `limit` rows; trajectories may be memory-mapped and are never held as a whole."""
    num_examples = trajectories.shape[0]
    chosen = np.arange(num_examples)
    if num_examples > limit:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(num_examples, limit, replace=False, shuffle=False))
    rows = np.asarray(trajectories[chosen], dtype=np.float64)
    own = np.asarray(labels[chosen], dtype=np.int64)
    keep = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1) & (own >= 0)
    return TrajectorySample(rows[keep], own[keep], np.bincount(labels[labels >= 0]), num_examples)


def trajectory_panels(sample: TrajectorySample, steps: Sequence[int]) -> list[tuple[str, Any]]:
    """First the mean trajectory of many clusters, then some clusters from the inside, each with a title.

    These are spread over how far their loss fell; each shows sampled examples, the cluster mean and one
    standard deviation around it, on the same axes. Nothing where no example has a trajectory.
    """
    if not sample.rows.size:
        return []
    columns = np.unique(np.linspace(0, len(steps) - 1, MAX_COLUMNS).astype(int))
    x = [int(steps[column]) for column in columns]
    means, counts = sample.means()
    means = means[:, columns]
    inside = dict(zip(_spread_clusters(means, counts), COLORS, strict=False))
    largest = [int(k) for k in np.argsort(-sample.sizes, kind="stable") if counts[k]]
    ranks = np.unique(np.linspace(0, len(largest) - 1, MEAN_CURVES).astype(int))
    shown = [largest[rank] for rank in ranks]
    # All means are seen, and all but the most extreme examples.
    top = 1.05 * float(max(np.quantile(sample.rows[:, columns], 0.995), np.nanmax(means[shown])))
    loss = alt.Y("y:Q", title="loss (nats per token)", scale=_loss_scale(sample, top))
    looks = {k: (FAINT, 1.0) for k in shown if k not in inside} | {k: (c, 2.6) for k, c in inside.items()}
    panels = [("cluster means", _mean_curves(x, means, sample.sizes, looks, loss))]
    for k, color in inside.items():
        rows = sample.rows[sample.labels == k][:, columns]
        figure = _inside(x, rows, means[k], color, loss)
        panels.append((f"cluster {k} ({sample.sizes[k]:,} examples)", figure))
    return panels


def _loss_scale(sample: TrajectorySample, top: float) -> alt.Scale:
    return alt.Scale(domain=[min(0.0, float(sample.rows.min())), top], nice=False)


def _curve(x: Sequence[int], y: np.ndarray, **own: Any) -> list[dict[str, Any]]:
    return [{"x": a, "y": significant(float(b), 4), **own} for a, b in zip(x, y, strict=True)]


def _mean_curves(
    x: Sequence[int], means: np.ndarray, sizes: np.ndarray, looks: dict[int, tuple[str, float]], loss: alt.Y
) -> Any:
    """The mean of each cluster that `looks` has, in its colour and width."""
    rows = []
    for k, (color, width) in looks.items():
        about = f"cluster {k}, {sizes[k]:,} examples"
        rows += _curve(x, means[k], cluster=k, color=color, width=width, about=about)
    lines = chart(rows).mark_line(point=len(x) == 1, clip=True)
    encoded = lines.encode(
        x=whole_numbers("proxy step"),
        y=loss,
        detail="cluster:N",
        color=alt.Color("color:N", scale=None),
        strokeWidth=alt.StrokeWidth("width:Q", scale=None),
        tooltip="about:N",
    )
    return sized(encoded, 230)


def _inside(x: Sequence[int], rows: np.ndarray, mean: np.ndarray, color: str, loss: alt.Y) -> Any:
    """Sampled curves, a band of one standard deviation, and the mean of one cluster."""
    some = [point for k, row in enumerate(rows[:CURVES_PER_CLUSTER]) for point in _curve(x, row, row=k)]
    spread = rows.std(axis=0)
    middle = _curve(x, mean)
    for point, low, high in zip(middle, mean - spread, mean + spread, strict=True):
        point |= {"low": significant(float(low), 4), "high": significant(float(high), 4)}
    look: dict[str, Any] = {"color": color, "clip": True}
    dot, step = len(x) == 1, whole_numbers("proxy step")
    band = chart(middle).mark_area(opacity=0.2, **look)
    curves = chart(some).mark_line(opacity=0.4, strokeWidth=0.9, point=dot, **look)
    line = chart(middle).mark_line(strokeWidth=2.6, point=dot, **look)
    layers = [
        band.encode(x=step, y=alt.Y("low:Q", title=None), y2="high:Q"),
        curves.encode(x=step, y=loss, detail="row:N"),
        line.encode(x=step, y=loss),
    ]
    return sized(alt.layer(*layers), 230)


def _spread_clusters(means: Float[np.ndarray, "k t"], counts: Int[np.ndarray, "k"]) -> list[int]:
    """Clusters at even ranks of how far their mean loss fell, among those with enough examples."""
    enough = np.flatnonzero(counts >= CURVES_PER_CLUSTER)
    if len(enough) < SHOWN_CLUSTERS:
        enough = np.argsort(-counts, kind="stable")[:SHOWN_CLUSTERS]
        enough = enough[counts[enough] > 0]
    ranked = enough[np.argsort(means[enough, -1] - means[enough, 0], kind="stable")]
    picks = np.unique(np.linspace(0, len(ranked) - 1, SHOWN_CLUSTERS).round().astype(int))
    return [int(k) for k in ranked[picks]]
