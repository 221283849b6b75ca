"""The results table and the HTML report: grouping, honest gaps, safety, size and determinism."""

import html.parser
import io
import json
import math
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import rich.console

from s2l_jax.errors import InputError
from s2l_jax.report.page import render_report, write_report
from s2l_jax.report.runs import Statistic, group_runs
from s2l_jax.report.section import SECTIONS as ENTRIES
from s2l_jax.report.section import report_section
from s2l_jax.report.sections import sources
from s2l_jax.report.sections.accuracy_by_source import source_scores
from s2l_jax.report.sections.cluster_sizes import size_bars
from s2l_jax.report.sections.learning_curves import thin_curve
from s2l_jax.report.sections.timing import time_bars
from s2l_jax.report.sections.trajectories import sample_trajectories, trajectory_figure
from s2l_jax.report.style import SOURCE_ROWS, label
from s2l_jax.report.table import format_seconds, results_table, table_rows

SECTIONS = {
    "results",
    "scores",
    "accuracy-by-source",
    "learning-curves",
    "trajectories",
    "cluster-sizes",
    "sources",
    "stability",
    "timing",
    "runs",
    "files",
}


def evaluation(accuracy, loss, sources):
    scores = {"accuracy": accuracy, "heldout_loss": loss, "num_examples": 20}
    return {"overall": dict(scores), "sources": {source: dict(scores) for source in sources}}


def make_results(num_sources=4, num_clusters=5, steps=(10, 20, 30, 40)):
    """Results of s2l and random at two budgets with three and two seeds, full data and untuned."""
    sources = {f"group/source {i}": 400 // (i + 1) for i in range(num_sources)}
    num_examples = sum(sources.values())
    curve = {"step": list(range(1, 41)), "loss": [3 * math.exp(-i / 9) + 0.5 for i in range(40)]}
    results = {
        "config_name": "example",
        "seed": 11,
        "pool": {
            "num_examples": num_examples,
            "num_without_loss": 2,
            "num_tokens": 51_000,
            "sources": sources,
        },
        "proxy": {"steps": 40, "parameters": 120_000, "final_loss": 0.6, "curve": curve},
        "trajectories": {
            "steps": list(steps),
            "num_examples": num_examples,
            "refreshes": [
                {"columns": 2, "inertia": 90.0, "adjusted_rand": math.nan},
                {"columns": 3, "inertia": 120.0, "adjusted_rand": 0.7},
                {"columns": 4, "inertia": 140.0, "adjusted_rand": 0.97},
            ],
        },
        "selections": {},
        "targets": {},
        "evaluations": {"untuned": evaluation(0.05, 2.5, sources)},
        "timing": {"pool": 1.0, "proxy": 20.0, "trajectories": 5.0, "evaluation": 3.0},
    }

    def add(name, method, budget, seed, accuracy, options=()):
        size = min(budget, num_examples)
        results["selections"][name] = {
            "method": method,
            "budget": budget,
            "size": size,
            "seed": seed,
            "options": dict(options),
            "sources": dict.fromkeys(sources, size // num_sources),
        }
        if method == "s2l":
            sizes = [num_examples // num_clusters] * num_clusters
            picked = [budget // num_clusters] * num_clusters
            extra = {"cluster_sizes": sizes, "picked_per_cluster": picked}
            results["selections"][name] |= {"num_clusters": num_clusters, **extra}
            results["timing"][f"selection/{name}"] = 1.0
        results["targets"][name] = {
            "steps": 40,
            "epochs": 2.0,
            "examples_seen": 640,
            "tokens_seen": 30_000,
            "final_loss": 0.5,
            "parameters": 900_000,
            "curve": curve,
        }
        results["evaluations"][name] = evaluation(accuracy, 2 - accuracy, sources)
        results["timing"][f"target/{name}"] = 30.0 + seed

    for seed, accuracy in enumerate((0.40, 0.50, 0.60)):
        add(f"s2l-100-{seed}", "s2l", 100, seed, accuracy, {"num_clusters": num_clusters})
    for seed, accuracy in enumerate((0.30, 0.34)):
        add(f"random-100-{seed}", "random", 100, seed, accuracy)
    add("random-50", "random", 50, 0, 0.2)
    add("full", "full", num_examples, 0, 0.7)
    return results


def make_trajectories(results, num_clusters=5, num_steps=4):
    rng = np.random.default_rng(3)
    num_examples = results["pool"]["num_examples"]
    labels = rng.integers(0, num_clusters, num_examples)
    falling = np.exp(-np.arange(num_steps) / 2)
    rows = 1 + labels[:, None] * falling + rng.normal(0, 0.05, (num_examples, num_steps))
    return rows.astype(np.float32), labels


def render(results, trajectories=None, labels=None, steps=(10, 20, 30, 40)):
    named = {} if labels is None else {"s2l-100-0": labels}
    return render_report(results, trajectories, list(steps), named)


@pytest.fixture(scope="module")
def full_page():
    results = make_results()
    return render(results, *make_trajectories(results))


class Page(html.parser.HTMLParser):
    """Collects what a browser would fetch, the ids, and the scripts."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.tags, self.data, self.scripts = [], set(), [], [], {}
        self.script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.links += [v for k, v in attrs if k in ("src", "href", "action", "data", "srcset")]
        self.script = attributes.get("id") if tag == "script" else None

    def handle_endtag(self, tag):
        self.script = None

    def handle_data(self, data):
        if self.script:
            self.scripts[self.script] = data
        self.data.append(data)


def rows_by_label(results):
    return {(row.group.label, row.group.budget): row.cells for row in table_rows(results)}


# --- the table


def test_runs_that_differ_in_seed_are_one_row():
    cells = rows_by_label(make_results())
    assert len(cells) == 5
    s2l = cells["s2l", 100]
    assert s2l[1:6] == ("100 (12%)", "3", "40", "50.0 (40.0–60.0)", "1.500")
    assert cells["random", 100][4] == "32.0 (30.0–34.0)"
    assert cells["random", 50][4] == "20.0"


def test_proxy_and_sweeps_are_charged_to_the_method_that_used_them():
    cells = rows_by_label(make_results())
    assert cells["s2l", 100][6:] == ("26s", "31s")  # 20 + 5 + 1, and the mean of 30, 31, 32
    assert cells["random", 100][6] == "-"


def test_rows_are_sorted_with_the_references_at_the_ends():
    results = make_results()
    results["selections"]["all"] = dict(results["selections"]["random-50"], budget=10_000)
    results["evaluations"]["from elsewhere"] = evaluation(0.9, 1.0, [])
    labels = [(group.label, group.budget) for group in group_runs(results)]
    assert labels[:2] == [("untuned", None), ("from elsewhere", None)]
    assert labels[2:6] == [("random", 50), ("s2l", 100), ("random", 100), ("random", 10_000)]
    assert labels[-1][0] == "full"


def test_options_name_rows_only_where_they_differ():
    results = make_results()
    other = dict(results["selections"]["s2l-100-0"], options={"num_clusters": 9, "init": "random"})
    results["selections"]["other"] = other
    labels = {group.label for group in group_runs(results)}
    assert {"s2l (num_clusters=5)", "s2l (init=random, num_clusters=9)", "random"} <= labels


def test_the_seed_in_options_does_not_split_a_row():
    results = make_results()
    for selection in results["selections"].values():
        selection["options"]["seed"] = selection["seed"]
    assert len(group_runs(results)) == 5


def test_what_was_not_measured_is_a_dash_and_never_zero():
    results = make_results()
    results["evaluations"]["random-50"]["overall"] = {"accuracy": math.nan, "heldout_loss": None}
    del results["targets"]["random-50"]
    del results["timing"]
    cells = rows_by_label(results)["random", 50]
    assert cells == ("random", "50 (6%)", "1", "-", "-", "-", "-", "-")


def test_a_nan_seed_is_left_out_of_the_mean():
    results = make_results()
    results["evaluations"]["s2l-100-2"]["overall"]["accuracy"] = math.nan
    assert rows_by_label(results)["s2l", 100][4] == "45.0 (40.0–50.0)"


def test_the_terminal_table_holds_every_cell_and_cuts_no_number():
    results = make_results()
    for width in (80, 200):
        console = rich.console.Console(width=width, record=True, file=io.StringIO())
        console.print(results_table(results))
        text = console.export_text()
        assert "…" not in text
        for cell in (cell for row in table_rows(results) for cell in row.cells):
            assert all(word in text for word in cell.split())


def test_names_with_markup_are_printed_as_they_are():
    results = {"evaluations": {"[red]x[/red]": {"overall": {"accuracy": 0.5}}}}
    console = rich.console.Console(width=100, record=True, file=io.StringIO())
    console.print(results_table(results))
    assert "[red]x[/red]" in console.export_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.004, "<0.01s"), (0.42, "0.42s"), (59.6, "1m 00s"), (38, "38s"), (245, "4m 05s")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_format_hours():
    assert format_seconds(3600 * 2 + 60 * 10) == "2h 10m"


@hypothesis.given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-1000, 1000))))
@hypothesis.settings(max_examples=60, deadline=None)
def test_statistic_covers_exactly_the_finite_values(values):
    finite = [v for v in values if v is not None and math.isfinite(v) and abs(v) < 1e300]
    hypothesis.assume(all(v is None or not math.isfinite(v) or abs(v) < 1e300 for v in values))
    statistic = Statistic.of(values)
    if not finite:
        assert statistic is None
        return
    assert statistic is not None
    assert statistic.count == len(finite)
    assert (statistic.low, statistic.high) == (min(finite), max(finite))
    assert statistic.mean == pytest.approx(sum(finite) / len(finite), rel=1e-9, abs=1e-9)


# --- the page


def test_full_results_give_every_section(full_page):
    page = Page(full_page)
    assert page.ids >= SECTIONS
    assert "left-out" not in page.ids
    assert "example" in full_page
    assert "4 sources" in full_page


def test_the_page_fetches_nothing(full_page):
    page = Page(full_page)
    assert page.links
    assert all(link.startswith("#") for link in page.links)
    assert not {"link", "iframe", "img"} & set(page.tags)
    assert "default-src 'none'" in full_page
    assert full_page.count("plotly.js v") == 1


def test_figures_are_strict_json_without_random_ids(full_page):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    specs = Page(full_page).scripts
    assert len(specs) >= 10
    for text in specs.values():
        spec = json.loads(text, parse_constant=refuse)
        assert spec["data"]
        assert all("uid" not in trace for trace in spec["data"])


def test_same_inputs_give_the_same_bytes(tmp_path):
    results = make_results()
    trajectories, labels = make_trajectories(results)
    for name in ("a", "b"):
        path = tmp_path / name / "index.html"
        write_report(
            path,
            results,
            trajectories=trajectories,
            steps=[10, 20, 30, 40],
            labels={"s2l-100-0": labels},
        )
    first, second = (tmp_path / name / "index.html" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert [p.name for p in first.parent.iterdir()] == ["index.html"]


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import hashlib, json, sys\n"
        "from s2l_jax.report.page import render_report\n"
        "page = render_report(json.load(open(sys.argv[1])), None, [10, 20], {})\n"
        "print(hashlib.sha256(page.encode()).hexdigest())\n"
    )
    results = make_results()
    del results["pool"]["sources"]  # the order of sources then comes from the subsets
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_no_results_give_a_page_that_says_so():
    page = Page(render({"config_name": "empty"}))
    assert page.ids & SECTIONS == {"files"}
    assert "left-out" in page.ids
    assert "figure" not in " ".join(page.ids)
    assert "No runs yet" in " ".join(page.data)


@pytest.mark.parametrize(
    ("part", "gone", "reason"),
    [
        ("evaluations", {"scores", "accuracy-by-source"}, "no target was evaluated"),
        ("timing", {"timing"}, "no times were measured"),
        ("trajectories", {"stability"}, "the clustering was not refreshed"),
    ],
)
def test_a_missing_stage_leaves_its_section_out_with_a_reason(part, gone, reason):
    results = make_results()
    trajectories, labels = make_trajectories(results)
    del results[part]
    text = render(results, trajectories, labels)
    page = Page(text)
    assert page.ids & SECTIONS == SECTIONS - gone
    assert reason in text


def test_without_trajectories_or_clusters_their_sections_are_left_out():
    results = make_results()
    trajectories, labels = make_trajectories(results)
    assert "no trajectories were recorded" in render(results, None, labels)
    assert "no selection clustered the trajectories" in render(results, trajectories)
    for selection in results["selections"].values():
        selection.pop("cluster_sizes", None)
    text = render(results)
    assert "no selection clustered the pool" in text
    assert not {"trajectories", "cluster-sizes"} & Page(text).ids


def test_targets_made_elsewhere_need_no_selection():
    results = make_results()
    del results["selections"]
    page = Page(render(results))
    assert {"results", "scores", "learning-curves", "runs"} <= page.ids


def test_accuracies_and_losses_that_are_nan_leave_gaps():
    results = make_results()
    for scores in results["evaluations"].values():
        scores["overall"]["accuracy"] = math.nan
        for source in scores["sources"].values():
            source["accuracy"] = None
    results["proxy"]["curve"]["loss"][3] = math.nan
    results["targets"]["random-50"]["curve"] = {"step": [], "loss": []}
    text = render(results)
    assert {"scores", "accuracy-by-source"} <= Page(text).ids  # held-out loss alone
    assert "NaN" not in "".join(Page(text).scripts.values())


def test_a_section_is_one_function(monkeypatch):
    monkeypatch.setattr(ENTRIES, "_entries", dict(ENTRIES))

    @report_section("How many runs", place=45)
    def run_count(section, found):
        section.header, section.rows = ["runs"], [[str(sum(len(group.runs) for group in found.groups))]]

    text = render(make_results())
    order = ['id="scores"', 'id="run-count"', 'id="accuracy-by-source"']
    assert sorted(order, key=text.index) == order
    assert "<td>8</td>" in text


HOSTILE = "</script><script>alert(1)</script>%{x}"


def test_hostile_names_stay_text():
    results = make_results()
    trajectories, labels = make_trajectories(results)
    benign = Page(render(results, trajectories, labels))
    text = json.dumps(results).replace("group/source 1", HOSTILE).replace("random-50", HOSTILE)
    hostile = json.loads(text) | {"config_name": HOSTILE}
    page_text = render(hostile, trajectories, labels)
    page = Page(page_text)
    assert "<script>alert" not in page_text
    assert page.tags.count("script") == benign.tags.count("script")
    assert page.tags.count("h1") == 1
    assert HOSTILE in page.data  # shown as it is


def test_labels_are_cut_and_escaped():
    assert label("<b>") == "&lt;b&gt;"
    assert label("x" * 50, 10) == "x" * 9 + "…"
    assert "%{" not in label("%{y}")


def test_many_sources_and_runs_stay_small_and_complete():
    results = make_results(num_sources=75, num_clusters=100)
    for budget in range(200, 212):
        for seed in range(2):
            name = f"s2l-{budget}-{seed}"
            for part in ("selections", "targets", "evaluations"):
                results[part][name] = dict(results[part]["s2l-100-0"])
            results["selections"][name] |= {"budget": budget, "seed": seed}
    trajectories, labels = make_trajectories(results, num_clusters=100)
    text = render(results, trajectories, labels)
    assert len(text.encode()) < 8_000_000
    page = Page(text)
    assert page.ids >= SECTIONS
    heatmap = json.loads(page.scripts["accuracy-by-source-0-spec"])
    names = heatmap["layout"]["yaxis"]["ticktext"]
    assert len(names) == SOURCE_ROWS
    assert names[-1] == "other (16 sources)"
    shares = json.loads(page.scripts["sources-0-spec"])["data"]
    assert len(shares) == sources.SOURCE_BARS + 1
    assert shares[-1]["name"] == "other (65 sources)"


def test_importing_the_report_imports_no_plotly():
    code = (
        "import sys, s2l_jax.report.page, s2l_jax.report.table\n"
        "assert not {'plotly', 'torch', 'tensorflow'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# --- figures


def test_accuracy_by_source_averages_seeds():
    results = make_results()
    results["evaluations"]["s2l-100-0"]["sources"]["group/source 2"]["accuracy"] = 0.1
    groups = group_runs(results)
    figure = source_scores(results, groups)
    assert not isinstance(figure, str)
    column = [group.full_label for group in groups].index("s2l · 100")
    cells = [line[column] for line in figure.data[0].z]
    assert cells == pytest.approx([50, 50, 40, 50])


def test_source_shares_add_up_and_ratios_compare_with_the_pool():
    results = make_results(num_sources=3)
    groups = group_runs(results)
    shares = sources.source_shares(results, groups)
    assert not isinstance(shares, str)
    totals = np.sum([bar.x for bar in shares.data], axis=0)
    assert totals == pytest.approx(np.full(5, 100.0))  # pool, full, s2l and two of random
    ratios = sources.source_ratios(results, groups)
    assert not isinstance(ratios, str)
    pool = results["pool"]["sources"]
    assert ratios.data[0].z[2][0] == pytest.approx(
        math.log2((1 / 3) / (pool["group/source 2"] / sum(pool.values())))
    )


def test_cluster_sizes_are_sorted_with_their_picks():
    selection = {"cluster_sizes": [5, 50, 20], "picked_per_cluster": [5, 8, 7]}
    figure = size_bars(selection)
    assert not isinstance(figure, str)
    assert list(figure.data[0].y) == [50, 20, 5]
    assert list(figure.data[1].y) == [8, 7, 5]
    assert list(figure.data[0].customdata) == [1, 2, 0]


def test_time_bars_charge_the_proxy_where_it_was_used():
    results = make_results()
    groups = [g for g in group_runs(results) if g.budget == 100]
    figure = time_bars(results, groups)
    assert not isinstance(figure, str)
    bars = {bar.name: list(bar.x) for bar in figure.data}
    assert bars["proxy"] == [20.0, None]
    assert bars["trajectory sweeps"] == [5.0, None]
    assert bars["target"] == [31.0, 30.5]


@hypothesis.given(st.integers(1, 200), st.integers(1, 50))
@hypothesis.settings(max_examples=40, deadline=None)
def test_thin_curve_keeps_the_mean_and_the_order(length, limit):
    loss = np.random.default_rng(length).normal(size=length)
    step, thin = thin_curve({"step": list(range(length)), "loss": list(loss)}, limit)
    assert len(step) == len(thin) == min(length, limit)
    assert (np.diff(step) > 0).all()
    if length % limit == 0:
        assert thin.mean() == pytest.approx(loss.mean())


def test_thin_curve_skips_what_is_not_finite():
    step, thin = thin_curve({"step": [1, 2, 3, 4], "loss": [1.0, math.nan, None, math.inf]}, 2)
    assert step.tolist() == [1.5, 3.5]
    assert thin[0] == 1.0
    assert math.isnan(thin[1])


# --- trajectories


def test_a_large_pool_is_sampled_with_a_seed(tmp_path):
    rows = np.random.default_rng(0).random((5000, 3), dtype=np.float32) + 1
    labels = np.arange(5000) % 7
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    first = sample_trajectories(mapped, labels, limit=300)
    again = sample_trajectories(mapped, labels, limit=300)
    assert first.rows.shape == (300, 3)
    assert np.array_equal(first.rows, again.rows)
    assert first.sizes.tolist() == np.bincount(labels).tolist()  # of all, not of the sample
    assert not np.array_equal(first.rows, sample_trajectories(mapped, labels, limit=300, seed=1).rows)


def test_examples_without_a_loss_or_a_cluster_are_not_drawn():
    rows = np.array([[1.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [3.0, 4.0]], dtype=np.float32)
    sample = sample_trajectories(rows, np.array([0, 0, 0, -1]))
    assert sample.rows.tolist() == [[1.0, 2.0]]
    assert sample.sizes.tolist() == [3]


def test_explained_variance_tells_good_clusters_from_random_ones():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    rows = labels[:, None] + rng.normal(0, 0.01, (400, 5)) + 1
    good = sample_trajectories(rows, labels).explained()
    random = sample_trajectories(rows, rng.permutation(labels)).explained()
    assert good is not None
    assert random is not None
    assert good[0] > 0.99
    assert random[0] < 0.05
    assert good[1] == pytest.approx(3 / 399)


def test_trajectory_figure_shows_six_clusters_beside_all_means():
    results = make_results()
    rows, labels = make_trajectories(results, num_clusters=9)
    figure = trajectory_figure(sample_trajectories(rows, labels), [10, 20, 30, 40])
    assert not isinstance(figure, str)
    assert len(figure.data) == 9 + 6 * 3  # means; then a band, curves and a mean per cluster
    curves = figure.data[10]
    assert np.isnan(curves.y).sum() == 20  # twenty sampled examples, with a gap after each


def test_one_cluster_and_one_checkpoint_can_be_drawn():
    sample = sample_trajectories(np.ones((3, 1)), np.zeros(3, dtype=int))
    assert not isinstance(trajectory_figure(sample, [5]), str)
    assert sample.explained() is None
    nothing = sample_trajectories(np.zeros((3, 1)), np.zeros(3, dtype=int))
    assert isinstance(trajectory_figure(nothing, [5]), str)


def test_inputs_that_do_not_fit_together_are_refused():
    results = make_results()
    trajectories, labels = make_trajectories(results)
    with pytest.raises(InputError, match="cluster labels"):
        render(results, trajectories, labels[:-1])
    with pytest.raises(InputError, match="steps"):
        render(results, trajectories, labels, steps=(10, 20))
