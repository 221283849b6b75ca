"""The adjusted Rand index of two clusterings."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.clustering import adjusted_rand_index
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
