"""Intervals of shares and means: against their definitions, and one from the literature."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.evaluation.intervals import bootstrap, mean_interval, wilson


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_wilsons_interval_inverts_the_score_test(counts):
    """Its ends are the proportions whose score statistic is the 97.5 % quantile."""
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            z = abs(successes / trials - end) / math.sqrt(end * (1 - end) / trials)
            assert z == pytest.approx(1.959964, rel=1e-4)


def test_known_intervals():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert mean_interval([0.4], [(0.3, 0.6)]) == pytest.approx((0.3, 0.6))
    low, high = mean_interval([0.5, 0.5], [(0.4, 0.6), (0.4, 0.6)])
    assert (low, high) == pytest.approx((0.5 - 0.1 / math.sqrt(2), 0.5 + 0.1 / math.sqrt(2)))
    values = np.arange(100) / 10
    low, high = bootstrap(lambda rows: float(values[rows].mean()), 100, resamples=2000)
    half = 1.96 * values.std() / 10
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1)
