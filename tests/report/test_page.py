"""The HTML page: its sections, gaps with reasons, safety, size and determinism."""

import html.parser
import json
import math
import subprocess
import sys

import pytest

from s2l_jax.report.page import write_report
from s2l_jax.report.section import SECTIONS as ENTRIES
from s2l_jax.report.section import report_section
from s2l_jax.report.sections import sources
from s2l_jax.report.style import SOURCE_ROWS, label
from tests.support.results import (
    make_results,
    make_trajectories,
    render,
)

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
