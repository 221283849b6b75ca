"""Write one self-contained HTML page that shows what a run did and found."""

import dataclasses
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from s2l_jax import artifacts
from s2l_jax.report import benchmark_table, figures, page_head, source_figures, table
from s2l_jax.report.runs import UNTUNED, RunGroup, finite_number, group_runs
from s2l_jax.report.trajectory_figure import sample_trajectories, trajectory_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

STABLE_RAND_INDEX = 0.95

# (part of the results, path, what is in it)
FILES = (
    ("pool", "pool/", "the tokenised pool and its manifest"),
    ("proxy", "proxy/", "checkpoints and metrics of the proxy"),
    ("trajectories", "trajectories.zarr", "losses of each example at each checkpoint, and row ids"),
    ("selections", "selection/<name>/indices.npy", "the chosen rows of the pool, sorted"),
    ("selections", "selection/<name>/subset.jsonl", "the same rows with their original fields"),
    ("selections", "selection/<name>/clusters.parquet", "the cluster of each example"),
    ("selections", "selection/<name>/summary.json", "settings, counts and hashes"),
    ("targets", "target/<name>/", "checkpoints and metrics of the target"),
    ("targets", "target/<name>/hf/", "the trained target, which transformers loads"),
    ("evaluations", "evaluation/<name>/<benchmark>/predictions.jsonl", "each prompt, response and verdict"),
)


@dataclasses.dataclass
class Section:
    """One heading of the page: figures under switchable names and tables, or why it is left out."""

    key: str
    title: str
    intro: str = ""
    views: dict[str, "go.Figure"] = dataclasses.field(default_factory=dict)
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    scroll: bool = False
    missing: str = ""

    def show(self, drawing: "go.Figure | str", name: str = "") -> "Section":
        """Add a figure, or remember why there is none."""
        if isinstance(drawing, str):
            self.missing = drawing
        else:
            self.views[name] = drawing
        return self


def write_report(
    path: epath.PathLike,
    results: Mapping[str, Any],
    *,
    trajectories: Float[np.ndarray, "n t"] | None,
    steps: Sequence[int],
    labels: Mapping[str, Int[np.ndarray, "n"]],
) -> None:
    """Write the report of `results` to `path`, atomically; the same inputs give the same bytes.

    The page needs no network: Plotly's JavaScript is in it once. Sections whose data `results`
    lacks are left out and listed with the reason at its end.

    Args:
      path: the HTML file to write.
      results: the content of results.json; any part may be missing.
      trajectories: losses in nats per token, [N, T], memory-mapped if large (a sample is read);
        None leaves that section out.
      steps: the proxy's optimiser step of each of the T columns.
      labels: the cluster of each pool example, [N] (negative: none), by selection name.

    Raises:
      InputError: trajectories, steps and labels do not fit together.
    """
    artifacts.write_text(path, render_report(results, trajectories, list(steps), labels))


def render_report(
    results: Mapping[str, Any],
    trajectories: Float[np.ndarray, "n t"] | None,
    steps: list[int],
    labels: Mapping[str, Int[np.ndarray, "n"]],
) -> str:
    """The report as HTML text; arguments as for `write_report`."""
    import jinja2
    import plotly.io
    import plotly.offline

    groups = group_runs(results)
    sections = [
        _results(results),
        *_benchmarks(results),
        _scores(groups),
        _accuracy_by_source(results, groups),
        _learning_curves(results, groups, steps),
        _trajectories(results, trajectories, steps, labels),
        _clusters(results),
        _sources(results, groups),
        _stability(results, steps),
        *_cluster_counts(results),
        _timing(results, groups),
        _runs(results, groups),
        _files(results),
    ]
    present = [section for section in sections if section.views or section.rows]
    views = {
        f"{section.key}-{i}": figure for section in present for i, figure in enumerate(section.views.values())
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = importlib.resources.files(__package__).joinpath("report.html").read_text("utf-8")
    return environment.from_string(source).render(
        title=str(results.get("config_name") or "run"),
        summary=page_head.summary(results, groups),
        facts=page_head.facts(results),
        sections=present,
        absent=[section for section in sections if not (section.views or section.rows)],
        heights={key: figure.layout.height for key, figure in views.items()},
        # "<" could end the script element early; as an escape it means the same to JSON.
        specs={
            key: plotly.io.to_json(figure, engine="json").replace("<", "\\u003c")
            for key, figure in views.items()
        },
        plotly_js=plotly.offline.get_plotlyjs(),
    )


def _results(results: Mapping[str, Any]) -> Section:
    rows = [row.cells for row in table.table_rows(results)]
    return Section(
        "results",
        "Results",
        "Runs that differ only in their seed are one row: the mean, and in brackets the lowest and "
        "the highest. A selection is charged the proxy and its sweeps wherever the method used "
        "them. A dash was not measured.",
        header=table.COLUMNS,
        rows=rows,
        missing="" if rows else "nothing was selected, trained or evaluated",
    )


def _benchmarks(results: Mapping[str, Any]) -> list[Section]:
    """Two tables, of runs that were evaluated on benchmarks."""
    evaluations = results.get("evaluations") or {}
    header, rows = benchmark_table.benchmark_table(evaluations)
    whole = Section(
        "benchmarks",
        "Benchmarks",
        "In percent, with 95 % intervals: Wilson's for accuracies, each benchmark weighing the same in "
        "means; bootstrap over rows for metrics of summaries.",
        header=header,
        rows=rows,
    )
    header, rows = benchmark_table.part_table(evaluations)
    parts = Section(
        "benchmark-parts",
        "Benchmarks by level and type",
        "Accuracy in percent, with 95 % intervals.",
        header=header,
        rows=rows,
        scroll=True,
    )
    return [section for section in (whole, parts) if section.rows]


def _scores(groups: Sequence[RunGroup]) -> Section:
    intro = "Bars and strokes are means, white points single seeds."
    if any(group.method == UNTUNED for group in groups):
        intro += " The dotted line is the target before fine-tuning."
    return Section("scores", "Accuracy and held-out loss", intro).show(figures.score_bars(groups))


def _accuracy_by_source(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Section:
    intro = "Mean over seeds; the largest sources of the pool on top. Hover for range and counts."
    section = Section("accuracy-by-source", "Accuracy by source", intro)
    return section.show(source_figures.accuracy_by_source(results, groups))


def _learning_curves(results: Mapping[str, Any], groups: Sequence[RunGroup], steps: list[int]) -> Section:
    intro = (
        "Training loss; long curves are averaged over equal runs of steps. Grey ticks mark the "
        "proxy's checkpoints. Click a name to hide its curves."
    )
    section = Section("learning-curves", "Learning curves", intro)
    return section.show(figures.learning_curves(results, groups, steps))


def _trajectories(
    results: Mapping[str, Any],
    trajectories: Float[np.ndarray, "n t"] | None,
    steps: list[int],
    labels: Mapping[str, Int[np.ndarray, "n"]],
) -> Section:
    section = Section("trajectories", "Loss trajectories within and across clusters")
    if trajectories is None or not trajectories.shape[1]:
        section.missing = "no trajectories were recorded"
        return section
    selections = results.get("selections") or {}
    clustered = [name for name in labels if selections.get(name, {}).get("cluster_sizes")]
    if not clustered:
        section.missing = "no selection clustered the trajectories"
        return section
    name = clustered[0]
    sample = sample_trajectories(trajectories, labels[name])
    shown = len(sample.rows)
    section.intro = (
        f"Clusters of {name}. Left, the mean loss of clusters over the proxy's training. Right, "
        "some of them from the inside, from the one whose loss fell most to the one whose loss "
        "fell least: sampled examples, the mean and one standard deviation; the cluster's size is "
        f"in brackets. Drawn from {shown:,} of {sample.num_examples:,} examples."
    )
    if explained := sample.explained():
        section.intro += (
            f" The clusters account for {100 * explained[0]:.1f} % of the variance of these "
            f"trajectories; as many random groups would for {100 * explained[1]:.2g} %."
        )
    return section.show(trajectory_figure(sample, steps))


def _clusters(results: Mapping[str, Any]) -> Section:
    intro = (
        "Grey is what a cluster holds, blue what was picked from it. Balanced sampling aims at the "
        "same number from every cluster of a source, or of the pool if it was not stratified."
    )
    section = Section("cluster-sizes", "Cluster sizes", intro)
    section.missing = "no selection clustered the pool"
    for name, selection in (results.get("selections") or {}).items():
        if selection.get("cluster_sizes"):
            section.show(figures.cluster_sizes(selection), name)
    return section


def _sources(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Section:
    section = Section(
        "sources",
        "Sources in the pool and in each subset",
        "Share of the examples, mean over seeds; or how over- (blue) or under-represented (orange) "
        "a source is against the pool.",
    )
    shares = source_figures.source_shares(results, groups)
    ratios = source_figures.source_ratios(results, groups)
    section.show(shares, "shares")
    if not isinstance(ratios, str):
        section.show(ratios, "against the pool")
    return section


def _stability(results: Mapping[str, Any], steps: list[int]) -> Section:
    refreshes = (results.get("trajectories") or {}).get("refreshes") or []
    section = Section(
        "stability",
        "When the clustering settled",
        "The clustering is refreshed at every checkpoint. Where its agreement with the refresh "
        "before stays near 1, later checkpoints changed little." + _settled(refreshes, steps),
    )
    return section.show(figures.stability(refreshes, steps))


def _cluster_counts(results: Mapping[str, Any]) -> list[Section]:
    """Nothing, where no other numbers of clusters were asked about."""
    if not (compared := results.get("cluster_counts")):
        return []
    section = Section(
        "cluster-counts",
        "Other numbers of clusters",
        "All trajectories clustered with several K, from several first centroids each. Inertia falls with "
        "every cluster: look for where it falls less. The silhouette (on a sample) says how well clusters "
        "are separated, stability how alike labels from other first centroids are (adjusted Rand index).",
    )
    return [section.show(figures.cluster_counts(compared))]


def _timing(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Section:
    timing = results.get("timing") or {}
    sums: dict[str, list[float]] = {}
    for key, value in timing.items():
        if (seconds := finite_number(value)) is not None:
            stage, _, name = key.partition("/")
            sums.setdefault(f"{stage} runs" if name else stage, []).append(seconds)
    section = Section(
        "timing",
        "Time",
        "Wall time behind each row, mean over seeds. The proxy and its sweeps are shared, and each "
        "method that used them is charged all of their time.",
        header=("stage", "number", "total time"),
        rows=[(stage, str(len(parts)), table.format_seconds(sum(parts))) for stage, parts in sums.items()],
    )
    return section.show(figures.time_bars(results, groups))


def _runs(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> Section:
    columns: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("name", lambda run: run.name),
        ("method", lambda run: run.selection.get("method")),
        ("options", lambda run: _pairs(run.selection.get("options"))),
        ("seed", lambda run: run.selection.get("seed")),
        ("examples", lambda run: _integer(run.selection.get("size"))),
        ("clusters", lambda run: _integer(run.selection.get("num_clusters"))),
        ("steps", lambda run: _integer(run.target.get("steps"))),
        ("epochs", lambda run: _decimals(run.target.get("epochs"), 2)),
        ("tokens seen", lambda run: _integer(run.target.get("tokens_seen"))),
        ("final loss", lambda run: _decimals(run.target.get("final_loss"), 4)),
    )
    runs = [run for group in groups for run in group.runs if run.selection or run.target]
    cells = [[str(_dash(value(run))) for _, value in columns] for run in runs]
    used = [i for i in range(len(columns)) if any(line[i] != table.NOT_MEASURED for line in cells)]
    return Section(
        "runs",
        "Runs and seeds",
        f"Seed of the whole run: {_dash(results.get('seed'))}.",
        header=[columns[i][0] for i in used],
        rows=[[line[i] for i in used] for line in cells],
        scroll=True,
        missing="" if runs else "nothing was selected or trained",
    )


def _files(results: Mapping[str, Any]) -> Section:
    rows = [
        ("config.json", "every setting, versions and the seed"),
        ("results.json", "every number of this page"),
        *((path, what) for part, path, what in FILES if results.get(part)),
    ]
    intro = "Paths are under the run's working directory."
    return Section("files", "Files", intro, header=("path", "holds"), rows=rows, scroll=True)


def _settled(refreshes: Sequence[Mapping[str, Any]], steps: list[int]) -> str:
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


def _pairs(options: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{key}={value}" for key, value in sorted((options or {}).items())) or None


def _integer(value: Any) -> str | None:
    number = finite_number(value)
    return None if number is None else f"{number:,.0f}"


def _decimals(value: Any, digits: int) -> str | None:
    number = finite_number(value)
    return None if number is None else f"{number:.{digits}f}"


def _dash(value: Any) -> Any:
    return table.NOT_MEASURED if value is None else value
