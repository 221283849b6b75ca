"""The figures of the page: what they draw of results, and what they leave out."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.report.runs import group_runs
from s2l_jax.report.sections import sources
from s2l_jax.report.sections.accuracy_by_source import source_scores
from s2l_jax.report.sections.cluster_sizes import size_bars
from s2l_jax.report.sections.learning_curves import thin_curve
from s2l_jax.report.sections.timing import time_bars
from s2l_jax.report.sections.trajectories import sample_trajectories, trajectory_figure
from tests.support.results import (
    make_results,
    make_trajectories,
    render,
)


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
