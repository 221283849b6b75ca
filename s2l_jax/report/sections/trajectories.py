"""Loss trajectories within one cluster and across clusters, after figure 2 of the S2L paper."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from s2l_jax.errors import InputError
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import COLORS, label, style

SAMPLED_ROWS = 20_000
SHOWN_CLUSTERS = 6
MEAN_CURVES = 60
CURVES_PER_CLUSTER = 20
MAX_COLUMNS = 120


@report_section("Loss trajectories within and across clusters", place=70)
def trajectories(section: Section, found: Findings) -> None:
    """Clusters of the first selection that has some."""
    if found.trajectories is None or not found.trajectories.shape[1]:
        section.missing = "no trajectories were recorded"
        return
    selections = found.part("selections")
    clustered = [name for name in found.labels if selections.get(name, {}).get("cluster_sizes")]
    if not clustered:
        section.missing = "no selection clustered the trajectories"
        return
    name = clustered[0]
    sample = sample_trajectories(found.trajectories, found.labels[name])
    section.intro = (
        f"Clusters of {name}. Left, the mean loss of clusters over the proxy's training. Right, "
        "some of them from the inside, from the one whose loss fell most to the one whose loss "
        "fell least: sampled examples, the mean and one standard deviation; the cluster's size is "
        f"in brackets. Drawn from {len(sample.rows):,} of {sample.num_examples:,} examples."
    )
    if (seed := found.part("trajectories").get("seed")) is not None:
        section.intro += f" Each seed has a proxy of its own; these are losses of that of seed {seed}."
    if explained := sample.explained():
        section.intro += (
            f" The clusters account for {100 * explained[0]:.1f} % of the variance of these "
            f"trajectories; as many random groups would for {100 * explained[1]:.2g} %."
        )
    section.show(trajectory_figure(sample, found.steps))


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
    if len(labels) != num_examples:
        raise InputError(
            f"{len(labels)} cluster labels for {num_examples} trajectories: pass the labels of the "
            "selection that was made from these trajectories"
        )
    chosen = np.arange(num_examples)
    if num_examples > limit:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(num_examples, limit, replace=False, shuffle=False))
    rows = np.asarray(trajectories[chosen], dtype=np.float64)
    own = np.asarray(labels[chosen], dtype=np.int64)
    keep = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1) & (own >= 0)
    return TrajectorySample(rows[keep], own[keep], np.bincount(labels[labels >= 0]), num_examples)


def trajectory_figure(sample: TrajectorySample, steps: Sequence[int]) -> go.Figure | str:
    """Left: the mean trajectory of many clusters. Right: six of them from the inside.

    The six are spread over how far their loss fell; each shows sampled examples, the cluster mean
    and one standard deviation around it, on the same axes.
    """
    if sample.rows.shape[1] != len(steps):
        raise InputError(
            f"{len(steps)} steps for trajectories of {sample.rows.shape[1]} columns: pass one step per column"
        )
    if not sample.rows.size:
        return "no example has a trajectory"
    columns = np.unique(np.linspace(0, len(steps) - 1, MAX_COLUMNS).astype(int))
    x = np.asarray(steps)[columns]
    means, counts = sample.means()
    means = means[:, columns]
    inside = _spread_clusters(means, counts)
    mode = "lines+markers" if len(columns) == 1 else "lines"

    titles = ["cluster means", *(f"cluster {k} ({sample.sizes[k]:,})" for k in inside)]
    figure = make_subplots(
        2,
        4,
        specs=[[{"rowspan": 2}, {}, {}, {}], [None, {}, {}, {}]],
        column_widths=[0.37, 0.21, 0.21, 0.21],
        horizontal_spacing=0.03,
        vertical_spacing=0.14,
        subplot_titles=titles,
        shared_xaxes=True,
    )
    colors = dict(zip(inside, COLORS, strict=False))
    largest = [k for k in np.argsort(-sample.sizes, kind="stable") if counts[k]]
    ranks = np.unique(np.linspace(0, len(largest) - 1, MEAN_CURVES).astype(int))
    shown = [largest[rank] for rank in ranks]
    for k in [k for k in shown if k not in colors] + inside:
        own = colors.get(k)
        line = {"color": own or "rgba(138, 143, 152, 0.5)", "width": 2.6 if own else 1}
        hover = f"step %{{x:,}}: %{{y:.3f}}<extra>cluster {k} · {sample.sizes[k]:,} examples</extra>"
        mean = go.Scatter(x=x, y=means[k], mode=mode, line=line, hovertemplate=hover)
        figure.add_trace(mean, row=1, col=1)
    for position, k in enumerate(inside):
        rows = sample.rows[sample.labels == k][:, columns]
        place = {"row": 1 + position // 3, "col": 2 + position % 3}
        for trace in _inside(x, rows, means[k], colors[k], mode, k):
            figure.add_trace(trace, **place)
    # All means are seen, and all but the most extreme examples.
    top = 1.05 * float(max(np.quantile(sample.rows[:, columns], 0.995), np.nanmax(means[shown])))
    figure.update_yaxes(range=[min(0.0, float(sample.rows.min())), top])
    for axis in ("yaxis3", "yaxis4", "yaxis6", "yaxis7"):
        figure.update_layout({axis: {"showticklabels": False}})
    figure.update_yaxes(title_text="loss (nats per token)", row=1, col=1)
    figure.update_xaxes(title_text="proxy step", row=1, col=1)
    figure.update_traces(showlegend=False)
    return style(figure, 470)


def _inside(x, rows, mean, color, mode, cluster) -> list:
    """Sampled curves, a band of one standard deviation, and the mean of one cluster."""
    some = rows[:CURVES_PER_CLUSTER]
    gap = np.full((len(some), 1), np.nan)
    spread = rows.std(axis=0)
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    curves = go.Scatter(
        x=np.tile(np.append(x.astype(np.float64), np.nan), len(some)),
        y=np.concatenate([some, gap], axis=1).astype(np.float32).ravel(),
        mode=mode,
        line={"color": f"rgba({red}, {green}, {blue}, 0.38)", "width": 0.9},
        hoverinfo="skip",
    )
    band = go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([mean + spread, (mean - spread)[::-1]]),
        fill="toself",
        fillcolor=f"rgba({red}, {green}, {blue}, 0.2)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )
    hover = f"step %{{x:,}}: %{{y:.3f}}<extra>mean of cluster {label(str(cluster))}</extra>"
    line = {"color": color, "width": 2.6}
    return [band, curves, go.Scatter(x=x, y=mean, mode=mode, line=line, hovertemplate=hover)]


def _spread_clusters(means: Float[np.ndarray, "k t"], counts: Int[np.ndarray, "k"]) -> list[int]:
    """Clusters at even ranks of how far their mean loss fell, among those with enough examples."""
    enough = np.flatnonzero(counts >= CURVES_PER_CLUSTER)
    if len(enough) < SHOWN_CLUSTERS:
        enough = np.argsort(-counts, kind="stable")[:SHOWN_CLUSTERS]
        enough = enough[counts[enough] > 0]
    ranked = enough[np.argsort(means[enough, -1] - means[enough, 0], kind="stable")]
    picks = np.unique(np.linspace(0, len(ranked) - 1, SHOWN_CLUSTERS).round().astype(int))
    return [int(k) for k in ranked[picks]]
