"""Paired differences: against SciPy by hand, and how often methods that are alike are called different."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from s2l_jax.evaluation.paired import holm, paired_difference


def crossed(rng, n, m, *, replicates=1.0, rows=1.0, rest=1.0, mean=0.0):
    """Differences with effects of replicates, of rows, and of neither."""
    effects = replicates * rng.normal(size=(n, 1)) + rows * rng.normal(size=(1, m))
    return mean + effects + rest * rng.normal(size=(n, m))


@pytest.mark.parametrize("shape", [(6, 1), (1, 40)])
def test_one_way_is_the_paired_t_test(shape):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.3, 1, shape), rng.normal(size=shape)
    found = paired_difference(ours - theirs)
    test = stats.ttest_rel(ours.ravel(), theirs.ravel())
    assert found.p_value == pytest.approx(test.pvalue)
    assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_without_variation_of_rows_it_is_the_t_test_over_replicates():
    by_replicate = np.repeat(np.random.default_rng(1).normal(size=(5, 1)), 30, axis=1)
    alone, found = paired_difference(by_replicate[:, :1]), paired_difference(by_replicate)
    assert (found.mean, found.p_value, *found.interval) == pytest.approx(
        (alone.mean, alone.p_value, *alone.interval)
    )


def test_without_variation_of_replicates_it_is_the_t_test_over_rows():
    by_row = np.repeat(np.random.default_rng(1).normal(size=(1, 30)), 5, axis=0)
    alone, found = paired_difference(by_row[:1]), paired_difference(by_row)
    assert (found.mean, found.p_value, *found.interval) == pytest.approx(
        (alone.mean, alone.p_value, *alone.interval)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 20), st.floats(-3, 3), st.floats(0.1, 10))
def test_moves_and_scales_with_the_differences(seed, n, m, shift, scale):
    d = np.random.default_rng(seed).normal(size=(n, m))
    found, moved = paired_difference(d), paired_difference(scale * d + shift)
    if n == m == 1:
        assert found is None
        return
    assert moved.mean == pytest.approx(scale * found.mean + shift)
    assert np.diff(moved.interval) == pytest.approx(scale * np.diff(found.interval))
    assert (found.p_value < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


@pytest.mark.long
@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize(
    "effects", [{}, {"replicates": 0.0}, {"rows": 0.0}, {"replicates": 0.2, "rest": 3.0}]
)
def test_methods_alike_are_seldom_called_different(n, effects):
    rng = np.random.default_rng(n)
    found = (paired_difference(crossed(rng, n, 50, **effects)).interval for _ in range(1000))
    assert (
        sum(not low <= 0 <= high for low, high in found) <= 75
    )  # 50 are due; 75 is 3.6 standard errors above


@pytest.mark.long
@pytest.mark.parametrize("m", [50, 200])
def test_replicates_that_tie_are_no_evidence(m):
    """Two replicates of right and wrong answers often differ from their pairs by the same number of rows."""
    rng = np.random.default_rng(m)
    p_values = []
    for _ in range(2000):
        right = rng.random((2, 2, m)) < rng.random((1, 1, m))
        p_values.append(paired_difference(right[0].astype(float) - right[1]).p_value)
    assert np.mean(np.array(p_values) < 0.005) < 0.01
    assert np.mean(np.array(p_values) < 0.05) < 0.06


def test_a_clear_difference_is_found():
    rng = np.random.default_rng(0)
    found = [paired_difference(crossed(rng, 5, 200, replicates=0.1, mean=0.5)) for _ in range(100)]
    assert sum(each.p_value < 0.05 for each in found) > 90


def test_no_variation_at_all():
    assert paired_difference(np.full((3, 4), 0.25)).interval == (0.25, 0.25)
    assert paired_difference(np.zeros((3, 4))).p_value == 1.0


@pytest.mark.parametrize("replicates", [1, 3])
@pytest.mark.parametrize("rows", [2, 3, 20])
@pytest.mark.parametrize("number", [1.0, 0.1])  # the mean of three times 0.1 is rounded
def test_rows_that_all_differ_alike_are_signs(replicates, rows, number):
    """Two rows that one method has right and the other wrong are no proof."""
    found = paired_difference(np.full((replicates, rows), number))
    assert found.p_value == pytest.approx(stats.binomtest(rows, rows).pvalue)


@pytest.mark.parametrize("number", [0.02, 0.0])
def test_replicates_that_tie_on_one_row_say_nothing(number):
    """Two seeds of 300 right or wrong answers often differ from their pairs by as many."""
    assert paired_difference(np.array([[0.51 - 0.50 + number], [0.53 - 0.52 + number]])) is None


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan, 1.0]])])
def test_what_is_no_difference_is_refused(bad):
    with pytest.raises(ValueError, match="replicates x m rows"):
        paired_difference(bad)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_corrects_as_the_definition_says(p_values):
    corrected, order = holm(p_values), np.argsort(p_values, kind="stable")
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        assert corrected[i] == pytest.approx(running)
    if p_values:
        assert corrected == pytest.approx(multipletests(p_values, method="holm")[1])
