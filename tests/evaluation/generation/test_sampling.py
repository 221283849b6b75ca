"""Drawing tokens: cut-offs keep what they say, draws follow the distribution and repeat by seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from s2l_jax.errors import InputError
from s2l_jax.evaluation.generation.sampling import GREEDY, Sampling, next_tokens, restricted

# XLA takes subnormal numbers for zero.
LOGITS = arrays(np.float32, (3, 11), elements=st.floats(-8, 8, width=32, allow_subnormal=False), unique=True)


def kept(logits, top_k, top_p):
    """Which tokens may be drawn, one row at a time in float64."""
    order = np.argsort(-logits, kind="stable")
    allowed = order[: top_k or None]
    probabilities = np.exp(logits[allowed].astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    before = np.concatenate([[0], np.cumsum(probabilities)[:-1]])
    margin = np.abs(before - top_p).min()
    return set(allowed[before < top_p].tolist()), margin


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.integers(0, 12), st.floats(0.05, 1.0))
def test_cut_offs_leave_the_likeliest_tokens(logits, top_k, top_p):
    left = np.asarray(restricted(jnp.asarray(logits), Sampling(1.0, top_k, top_p)))
    for row, out in zip(logits, left, strict=True):
        expected, margin = kept(row, top_k, top_p)
        if margin > 1e-5:
            assert set(np.flatnonzero(np.isfinite(out)).tolist()) == expected
        np.testing.assert_array_equal(out[np.isfinite(out)], row[np.isfinite(out)])
        assert np.isfinite(out[row.argmax()])


def test_greedy_takes_the_lowest_of_equals():
    logits = jnp.array([[0.0, 3.0, 3.0, -1.0], [5.0, -jnp.inf, 5.0, 5.0], [-1.0, -2.0, -3.0, 0.0]])
    zeros = jnp.zeros(3, jnp.int32)
    assert next_tokens(logits, zeros, zeros, GREEDY).tolist() == [1, 0, 3]


def test_draws_follow_the_distribution():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05, 0.0]))
    number = jnp.arange(20_000, dtype=jnp.int32)
    rows = jnp.broadcast_to(logits, (len(number), 5))
    for temperature in (1.0, 0.5):
        drawn = next_tokens(rows, number, jnp.zeros_like(number), Sampling(temperature))
        expected = jax.nn.softmax(logits / temperature)
        np.testing.assert_allclose(np.bincount(drawn, minlength=5) / len(number), expected, atol=0.015)
    nucleus = next_tokens(rows, number, jnp.zeros_like(number), Sampling(1.0, top_p=0.7))
    assert set(np.unique(nucleus).tolist()) == {0, 1}


def test_a_draw_depends_on_seed_prompt_and_place_alone():
    logits = jax.random.normal(jax.random.key(0), (64, 50))
    same = jnp.broadcast_to(logits[0], logits.shape)
    indices, counts = jnp.arange(64, dtype=jnp.int32), jnp.full(64, 3, jnp.int32)
    first = next_tokens(same, indices, counts, Sampling(1.0, seed=1))
    shuffled = jax.random.permutation(jax.random.key(1), 64)
    again = next_tokens(same, indices[shuffled], counts, Sampling(1.0, seed=1))
    np.testing.assert_array_equal(again, first[shuffled])
    assert (first != next_tokens(same, indices, counts, Sampling(1.0, seed=2))).mean() > 0.5
    assert (first != next_tokens(same, indices, counts + 1, Sampling(1.0, seed=1))).mean() > 0.5
    assert (first != first[0]).mean() > 0.5


@pytest.mark.parametrize(
    ("options", "name"),
    [({"temperature": -1.0}, "temperature=-1"), ({"top_k": -2}, "top_k=-2"), ({"top_p": 0.0}, "top_p=0"),
     ({"top_p": 1.5}, "top_p=1.5")],
)  # fmt: skip
def test_settings_without_sense_are_refused(options, name):
    with pytest.raises(InputError, match=name):
        Sampling(**options)
