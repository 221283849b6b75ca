"""The page in a browser: it loads alone and quietly, what is picked is shown, and nothing is cut off."""

import dataclasses

import numpy as np
import pytest

from s2l_jax.report.page import write_report
from tests.support.browser import Tab, chromium
from tests.support.results import hostile_results, make_findings, make_results, make_trajectories

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>${alert(3)}{{7*7}}"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    results = make_results(num_clusters=9)
    write_report(folder, make_findings(results, *make_trajectories(results, num_clusters=9)))
    return folder / "index.html"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_it_loads_without_a_complaint_or_a_request_and_fits_the_window(browser, path, width, scheme):
    tab = Tab(browser, path, width, scheme)
    assert tab.complaints == []
    assert tab.requests == [path.as_uri()]
    assert tab.too_wide() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    drawn = tab.page.locator(".plot").count()
    assert drawn > 15
    assert tab.page.locator(".plot svg, .plot canvas").count() == drawn


def test_picking_a_cluster_changes_the_curves_and_the_texts(browser, path):
    page = Tab(browser, path, 1200).page

    def shown():
        texts = page.locator("#explorer-examples").inner_text()
        return page.locator("#explorer-facts").inner_text(), texts, page.inner_html("#explorer-curves svg")

    before = shown()
    page.locator("#explorer-clusters button[aria-pressed=false]").first.click()
    page.wait_for_function(
        "(old) => document.querySelector('#explorer-curves svg').innerHTML !== old", arg=before[2]
    )
    assert all(old != new for old, new in zip(before, shown(), strict=True))
    picked = page.locator("#explorer-clusters button[aria-pressed=true]")
    assert picked.count() == 1
    assert page.inner_text("#explorer-facts").startswith(f"Cluster {picked.get_attribute('data-cluster')}:")


def test_a_cluster_and_a_row_are_picked_from_the_keyboard(browser, path):
    page = Tab(browser, path, 1200).page
    last = page.locator("#explorer-clusters button").last
    last.focus()
    page.keyboard.press("Enter")
    assert last.get_attribute("aria-pressed") == "true"
    page.locator("#filter-rows button").first.focus()
    page.keyboard.press("Enter")
    assert "text asked 0" in page.inner_text("#explorer-row")


def test_a_point_of_the_map_picks_its_row_and_cluster(browser, path):
    page = Tab(browser, path, 1200).page
    before = page.inner_text("#explorer-row")
    canvas = page.locator("#explorer-map canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # Where a point is, is the map's to say: the clicks go over it until one hits.
    for place in range(1600):
        across, down = divmod(place, 40)
        page.mouse.click(box["x"] + box["width"] * across / 40, box["y"] + box["height"] * down / 40)
        if page.inner_text("#explorer-row") != before:
            break
    said = page.inner_text("#explorer-row")
    assert "text asked" in said
    picked = page.locator("#explorer-clusters button[aria-pressed=true]").get_attribute("data-cluster")
    assert page.inner_text("#explorer-facts").startswith(f"Cluster {picked}:")


def test_filters_work_together(browser, path):
    page = Tab(browser, path, 1200).page
    everything = page.inner_text("#filter-status")
    page.fill("#filter-text", "asked 12")
    page.select_option("#filter-taken", "1")
    rows = page.locator("#filter-rows tr").all_inner_texts()
    # Every fifth row was taken: of 12, 120 to 129 and so on, 120 and 125.
    assert [row.split()[0] for row in rows] == ["120", "125"]
    assert page.inner_text("#filter-status") != everything
    page.select_option("#filter-source", "1")
    assert [row.split()[0] for row in page.locator("#filter-rows tr").all_inner_texts()] == ["125"]
    page.click("#filter-clear")
    assert page.inner_text("#filter-status") == everything


def test_another_view_is_shown_and_hidden_from_who_cannot_see_it(browser, path):
    page = Tab(browser, path, 1200).page
    page.select_option("select[data-views=sources]", "sources-1")
    assert page.locator("#sources-1").get_attribute("aria-hidden") == "false"
    assert page.locator("#sources-0").get_attribute("aria-hidden") == "true"
    assert not page.locator("#sources-0").is_visible()


def test_paper_has_all_views(browser, path):
    page = Tab(browser, path, 1200, "dark").page
    page.emulate_media(media="print")
    views = page.locator(".view")
    assert all(views.nth(i).is_visible() for i in range(views.count()))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_nothing_in_the_data_runs(browser, tmp_path):
    hostile = hostile_results(HOSTILE)
    trajectories, labels = make_trajectories(hostile)
    found = make_findings(hostile, trajectories, labels, text=HOSTILE)
    sources = np.array([f"{HOSTILE} {source}" for source in found.rows.sources])  # long ones, too
    found = dataclasses.replace(found, rows=dataclasses.replace(found.rows, sources=sources))
    write_report(tmp_path, found)
    tab = Tab(browser, tmp_path / "index.html", 400)
    tab.page.locator("#filter-rows button").first.click()
    assert tab.complaints == []
    assert tab.requests == [(tmp_path / "index.html").as_uri()]
    assert tab.page.inner_text("h1") == HOSTILE
    for section in ("benchmarks", "ablations", "differences"):
        assert HOSTILE in tab.page.inner_text(f"#{section}")
    assert HOSTILE in tab.page.inner_text("#explorer-row")
    assert tab.page.locator("img").count() == 0
    assert tab.too_wide() == []
