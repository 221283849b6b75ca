"""The adjusted Rand index of two clusterings."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.clustering import adjusted_rand_index, adjusted_rand_within
from s2l_jax.errors import InputError


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
def test_adjusted_rand_index_counts_pairs(pairs):
    a, b = map(np.array, zip(*pairs, strict=True))
    same_a, same_b = a[:, None] == a, b[:, None] == b
    upper = np.triu_indices(len(a), 1)
    both = int((same_a & same_b)[upper].sum())
    in_a, in_b, total = int(same_a[upper].sum()), int(same_b[upper].sum()), len(upper[0])
    chance, most = in_a * in_b / total, (in_a + in_b) / 2
    expected = 1.0 if most == chance else (both - chance) / (most - chance)
    assert math.isclose(adjusted_rand_index(a, b), expected, abs_tol=1e-12)


def test_adjusted_rand_index_refuses_other_lengths():
    with pytest.raises(InputError, match="one length"):
        adjusted_rand_index([0, 1], [0, 1, 2])


def test_within_groups_only_those_count_that_both_have_in_several_clusters():
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c", "d"], [30, 60, 20, 10])
    a, b = rng.integers(0, 3, (2, 120))
    a[groups == "b"] += 3
    b[groups == "b"] = a[groups == "b"]
    a[groups == "c"] = b[groups == "c"] = 9
    a[groups == "d"] = 8  # by one only
    of_a = adjusted_rand_index(a[:30], b[:30])
    assert abs(of_a) < 0.2
    assert adjusted_rand_within(a, b, groups) == pytest.approx((30 * of_a + 60) / 90)
    assert adjusted_rand_within(a, b) == adjusted_rand_index(a, b)
    assert adjusted_rand_within(a[90:110], b[90:110]) is None
    outside = rng.random((2, 120)) < 0.2
    inside = ~outside.any(0)
    a, b = np.where(outside, -1, [a, b])
    assert adjusted_rand_within(a, b) == adjusted_rand_index(a[inside], b[inside])
    assert adjusted_rand_within(a, b, groups) == adjusted_rand_within(a[inside], b[inside], groups[inside])
    assert adjusted_rand_within(a, np.full(120, -1)) is None
