"""The figures of the page: what they draw of results, and what they leave out."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.report.findings import Findings
from s2l_jax.report.purity import largest_shares
from s2l_jax.report.runs import group_runs
from s2l_jax.report.sections import cost, sources
from s2l_jax.report.sections.accuracy_by_source import source_scores
from s2l_jax.report.sections.cluster_sizes import size_bars
from s2l_jax.report.sections.learning_curves import thin_curve
from s2l_jax.report.sections.timing import time_bars
from s2l_jax.report.sections.trajectories import sample_trajectories, trajectory_panels
from tests.support.results import drawn, filled, make_results, make_rows, make_trajectories, render


def test_accuracy_by_source_averages_seeds():
    results = make_results()
    results["evaluations"]["s2l-100-seed0"]["sources"]["group/source 2"]["accuracy"] = 0.1
    groups = group_runs(results)
    figure = source_scores(results, groups)
    assert not isinstance(figure, str)
    cells = {cell["row"]: cell["value"] for cell in drawn(figure) if cell["column"] == "s2l · 100"}
    assert list(cells.values()) == pytest.approx([50, 50, 40, 50])
    assert cells["group/source 2"] == pytest.approx(40)


def test_source_shares_add_up_and_ratios_compare_with_the_pool():
    results = make_results(num_sources=3)
    groups = group_runs(results)
    shares = sources.source_shares(results, groups)
    assert not isinstance(shares, str)
    bars = drawn(shares)
    lines = {bar["name"] for bar in bars}
    assert len(lines) == 5  # pool, full, s2l and two of random
    for line in lines:
        assert sum(bar["x"] for bar in bars if bar["name"] == line) == pytest.approx(100, abs=0.01)
    ratios = sources.source_ratios(results, groups)
    assert not isinstance(ratios, str)
    pool = results["pool"]["sources"]
    third = next(cell["value"] for cell in drawn(ratios) if cell["row"] == "group/source 2")
    expected = math.log2((1 / 3) / (pool["group/source 2"] / sum(pool.values())))
    assert third == pytest.approx(expected, rel=1e-3)


def test_cluster_sizes_are_sorted_with_their_picks():
    selection = {"cluster_sizes": [5, 50, 20], "picked_per_cluster": [5, 8, 7]}
    bars = drawn(size_bars(selection))
    assert [bar["y"] for bar in bars if bar["name"] == "in the pool"] == [50, 20, 5]
    assert [bar["y"] for bar in bars if bar["name"] == "picked"] == [8, 7, 5]
    assert [bar["about"].split(":")[0] for bar in bars[:3]] == ["cluster 1", "cluster 2", "cluster 0"]


def test_time_bars_charge_the_proxy_where_it_was_used():
    results = make_results()
    groups = [g for g in group_runs(results) if g.budget == 100]
    figure = time_bars(results, groups)
    assert not isinstance(figure, str)
    bars = {(bar["part"], bar["name"]): bar["x"] for bar in drawn(figure)}
    assert bars == {
        ("proxy", "s2l · 100"): 20.0,
        ("trajectory sweeps", "s2l · 100"): 5.0,
        ("selection", "s2l · 100"): 1.0,
        ("target", "s2l · 100"): 31.0,
        ("target", "random · 100"): 30.5,
    }


def test_time_bars_charge_features_to_the_runs_that_used_them():
    results = make_results()
    for name, chosen in results["selections"].items():
        if chosen["method"] == "s2l":
            chosen["used"] = [*chosen.get("used", ()), "hidden_states/target-mean", f"gradients/{name}"]
    results["timing"] |= {"hidden_states/target-mean": 7.0, "gradients/s2l-100-seed0": 3.0}
    figure = time_bars(results, [g for g in group_runs(results) if g.budget == 100])
    bars = {(bar["part"], bar["name"]): bar["x"] for bar in drawn(figure)}
    seeds = len([name for name in results["selections"] if name.startswith("s2l-100")])
    assert bars["hidden states, gradients", "s2l · 100"] == pytest.approx(7.0 + 3.0 / seeds, rel=1e-3)
    assert ("hidden states, gradients", "random · 100") not in bars


def test_time_bars_show_losses_from_elsewhere_as_such():
    results = make_results()
    for chosen in results["selections"].values():
        chosen["used"] = ["imported" if part == "proxy" else part for part in chosen.get("used", ())]
    results["timing"]["imported"] = 70.0  # with that of the proxy there
    figure = time_bars(results, [g for g in group_runs(results) if g.budget == 100])
    bars = {(bar["part"], bar["name"]): bar["x"] for bar in drawn(figure)}
    assert bars["losses from elsewhere", "s2l · 100"] == 70.0
    assert {part for part, _ in bars}.isdisjoint({"proxy", "hidden states, gradients"})


@hypothesis.given(st.integers(1, 200), st.integers(1, 50))
@hypothesis.settings(max_examples=40, deadline=None)
def test_thin_curve_keeps_the_mean_and_the_order(length, limit):
    loss = np.random.default_rng(length).normal(size=length)
    step, thin = thin_curve({"step": list(range(length)), "loss": list(loss)}, limit)
    assert len(step) == len(thin) == min(length, limit)
    assert (np.diff(step) > 0).all()
    if length % limit == 0:
        assert thin.mean() == pytest.approx(loss.mean())


def test_curves_of_all_proxies_are_drawn_by_name():
    results = make_results()
    of_first = results["proxy"]
    other, third = ({"proxy": of_first | {"curve": {"step": [1, 2], "loss": [n, 1]}}} for n in (7, 9))
    results["proxies"] = {"seed_1": other, "proxy_seed_2/seed_1": third, "proxy_given": {"trajectories": {}}}

    def starts():
        points = drawn(filled("learning_curves", Findings(results)).views[""][0].chart)
        return {point["name"]: point["y"] for point in points if point["x"] == 1}

    others = {"seed_1/proxy": 7, "proxy_seed_2/seed_1/proxy": 9}
    assert starts() == {"proxy": 3.5, **others}
    results["proxy"] = {}  # not trained here
    assert starts() == others
    del results["proxies"]
    results["proxy"] = of_first
    assert starts() == {"proxy": 3.5}


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


def test_some_clusters_are_shown_beside_the_means_of_all():
    results = make_results()
    rows, labels = make_trajectories(results, num_clusters=9)
    (title, means), *inside = trajectory_panels(sample_trajectories(rows, labels), [10, 20, 30, 40])
    assert title == "cluster means"
    assert {point["cluster"] for point in drawn(means)} == set(range(9))
    assert len(inside) == 5
    for _, figure in inside:
        curves = {point["row"] for point in drawn(figure) if "row" in point}
        assert len(curves) == 20  # sampled examples


def test_one_cluster_and_one_checkpoint_can_be_drawn():
    sample = sample_trajectories(np.ones((3, 1)), np.zeros(3, dtype=int))
    assert len(trajectory_panels(sample, [5])) == 2
    assert sample.explained() is None
    nothing = sample_trajectories(np.zeros((3, 1)), np.zeros(3, dtype=int))
    assert trajectory_panels(nothing, [5]) == []


def test_inputs_that_do_not_fit_together_are_refused():
    results = make_results()
    trajectories, labels = make_trajectories(results)
    with pytest.raises(InputError, match="cluster labels"):
        render(results, trajectories, labels[:-1])
    with pytest.raises(InputError, match="steps"):
        render(results, trajectories, labels, steps=(10, 20))


# --- cost and topics


def test_methods_by_loss_are_charged_the_proxy_and_its_sweeps():
    found = Findings(make_results())
    spent = {group.full_label: (total, choosing) for group, total, choosing, _ in cost.costs(found)}
    assert spent["s2l · 100"] == pytest.approx((1.3e12, 3e11))
    assert spent["random · 100"] == pytest.approx((1e12, 0))


def test_shares_of_the_largest_source_fall_from_the_purest_cluster():
    labels, sources_of = np.array([0, 0, 0, 0, 2, 2, -1]), np.array([0, 0, 0, 1, 1, 1, 0])
    shares, overall = largest_shares(labels, sources_of, 2)
    assert shares.tolist() == [1.0, 0.75]  # cluster 1 is empty
    assert overall == pytest.approx(100 * 5 / 6)


def test_clusterings_of_each_source_alone_have_no_figure_of_topics():
    results = make_results()
    trajectories, labels = make_trajectories(results)
    assert 'id="topics"' in render(results, trajectories, labels)
    own = np.arange(len(labels)) % 2  # the sources of these rows
    assert 'id="topics"' not in render(results, trajectories, own)


def test_embeddings_clusters_stand_beside_those_of_loss_trajectories():
    results = make_results()
    first = results["selections"]["s2l-100-seed0"]
    results["selections"]["states"] = first | {"options": {"features": "hidden_states"}}
    count = results["pool"]["num_examples"]
    by_losses, by_states = np.arange(count) % 5, np.arange(count) % 2  # make_rows has the sources by turns
    by_states[:10] = 1 - by_states[:10]
    labels = {"s2l-100-seed0": by_losses, "states": by_states}
    found = Findings(results, labels=labels, rows=make_rows(count))
    section = filled("topics", found)
    (panel,) = section.views[""]
    best = {line["name"]: line["y"] for line in drawn(panel.chart) if line["x"] == 100}
    losses, states = sorted(best, key=best.__getitem__)
    assert losses.startswith("s2l-100-seed0: loss trajectories (5")
    assert states.startswith("states: embeddings (99 %)")


def test_topics_are_of_what_a_method_clusters_and_of_clusters_alone():
    results = make_results()
    options = {
        "s2l": {"features": "loss_falls", "num_clusters": 2},
        "semdedup": {"num_clusters": 2},
        "confidence_curriculum": {},  # its labels are stages
        "nobody:knows_this": {},
    }
    sizes = {"budget": 10, "size": 10, "seed": 0, "cluster_sizes": [5, 5]}
    results["selections"] = {name: sizes | {"method": name, "options": own} for name, own in options.items()}
    count = results["pool"]["num_examples"]
    labels = dict.fromkeys(options, np.arange(count) % 5)
    (panel,) = filled("topics", Findings(results, labels=labels, rows=make_rows(count))).views[""]
    named = {line["name"].partition(" (")[0] for line in drawn(panel.chart)}
    assert named == {
        "s2l: loss falls",
        "semdedup: embeddings",
        "nobody:knows_this: clusters of a method that is not installed",
    }
