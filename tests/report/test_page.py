"""The HTML page: its sections, gaps with reasons, safety, size and determinism."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest
import vl_convert

from s2l_jax.report.page import render_report, write_report
from s2l_jax.report.section import SECTIONS as ENTRIES
from s2l_jax.report.section import all_sections, report_section
from s2l_jax.report.sections import sources
from s2l_jax.report.sections.explorer import curves_figure, map_figure
from s2l_jax.report.style import SOURCE_ROWS
from tests.support.results import hostile_results, make_findings, make_results, make_trajectories, render

pytestmark = pytest.mark.long

SECTIONS = {
    "results",
    "explorer",
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
    assert full_page.count("window.vegaEmbed=") == 1


def test_no_script_but_those_of_the_page_may_run(full_page):
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', full_page)[1].replace("&#39;", "'")
    (allowed,) = re.findall("script-src ([^;]*);", policy)
    scripts = re.findall("<script>(.*?)</script>", full_page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(hashes) == 3  # Vega, the page's, the explorer's
    assert allowed.split() == [f"'sha256-{each}'" for each in hashes]
    assert "default-src 'none'" in policy


def test_figures_are_strict_json_without_random_ids(full_page):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    data = {name: json.loads(text, parse_constant=refuse) for name, text in Page(full_page).scripts.items()}
    specs = {name: spec for name, spec in data.items() if name.endswith("-spec")}
    assert len(specs) >= 15
    assert all("mark" in spec or "layer" in spec for spec in specs.values())


def test_same_findings_give_the_same_bytes(tmp_path):
    results = make_results()
    for name in ("a", "b"):
        write_report(tmp_path / name, make_findings(results, *make_trajectories(results)))
    first, second = (
        {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in ("a", "b")
    )
    assert first == second
    assert {str(name) for name in first} >= {
        "index.html",
        "figures/timing.svg",
        "figures/scores-accuracy.svg",
    }


def test_figures_are_written_for_every_panel_and_old_ones_go(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "of-an-earlier-report.svg").write_text("<svg/>")
    results = make_results()
    found = make_findings(results, *make_trajectories(results))
    write_report(tmp_path, found)
    panels = [panel for section in all_sections(found) for view in section.views.values() for panel in view]
    files = sorted((tmp_path / "figures").iterdir())
    assert len(files) == len(panels) > 15
    assert not (tmp_path / "figures" / "of-an-earlier-report.svg").exists()
    for file in files:
        assert xml.etree.ElementTree.parse(file).getroot().tag.endswith("svg")


def test_figures_fit_the_schema_of_vega_lite():
    results = make_results()
    sections = all_sections(make_findings(results, *make_trajectories(results)))
    for section in sections:
        for panel in (panel for view in section.views.values() for panel in view):
            panel.chart.to_dict(validate=True)  # raises
    map_figure().to_dict(validate=True)
    curves_figure().to_dict(validate=True)


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import hashlib, json, sys\n"
        "from s2l_jax.report.page import render_report\n"
        "from s2l_jax.report.findings import Findings\n"
        "page = render_report(Findings(json.load(open(sys.argv[1])), None, [10, 20]))\n"
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
    assert ">8</td>" in text


HOSTILE = "</script><script>alert(1)</script>%{x}<img src=x onerror=alert(2)>"


def test_hostile_names_and_texts_stay_text():
    results = make_results()
    trajectories, labels = make_trajectories(results)
    benign = Page(render(hostile_results("harmless"), trajectories, labels))
    page_text = render(hostile_results(HOSTILE), trajectories, labels, text=HOSTILE).replace(
        vl_convert.javascript_bundle(), ""
    )
    page = Page(page_text)
    assert "ablations" in page.ids
    assert "<script>alert" not in page_text
    assert "<img" not in page_text
    assert page.tags.count("script") == benign.tags.count("script")
    assert page.tags.count("h1") == 1
    assert HOSTILE in page.data  # shown as it is
    content = json.loads(page.scripts["explorer-data"])
    assert content["texts"][3] == [f"{HOSTILE} asked 3", f"{HOSTILE} answered 3"]


def test_texts_are_left_out_where_they_may_not_be_shown():
    results = make_results()
    found = make_findings(results, *make_trajectories(results), text="undisclosed")
    assert "undisclosed" in render_report(found)
    private = dataclasses.replace(found, rows=dataclasses.replace(found.rows, texts=None))
    page = render_report(private)
    assert "undisclosed" not in page
    assert "Texts are left out" in page


def test_many_sources_and_runs_stay_small_and_complete():
    results = make_results(num_sources=75, num_clusters=100)
    for budget in range(200, 212):
        for seed in range(2):
            name = f"s2l-{budget}-seed{seed}"
            for part in ("selections", "targets", "evaluations"):
                results[part][name] = dict(results[part]["s2l-100-seed0"])
            results["selections"][name] |= {"budget": budget, "seed": seed}
    trajectories, labels = make_trajectories(results, num_clusters=100)
    text = render(results, trajectories, labels)
    assert len(text.encode()) < 3_000_000
    page = Page(text)
    assert page.ids >= SECTIONS
    heatmap = json.loads(page.scripts["accuracy-by-source-0-0-spec"])
    names = heatmap["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert len(names) == SOURCE_ROWS
    assert names[-1] == "other (16 sources)"
    shares = json.loads(page.scripts["sources-0-0-spec"])["encoding"]["color"]["scale"]["domain"]
    assert shares[-1] == f"other ({75 - sources.SOURCE_BARS} sources)"
    assert len(shares) == sources.SOURCE_BARS + 1


def test_importing_the_report_imports_no_drawing_library():
    code = (
        "import sys, s2l_jax.report.page, s2l_jax.report.table\n"
        "assert not {'altair', 'vl_convert', 'torch', 'tensorflow'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
