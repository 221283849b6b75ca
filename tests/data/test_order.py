"""The visiting order: every example once an epoch, known at any position, shuffled well."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.order import mix, visit_order

SIZES = st.one_of(
    st.integers(1, 40),
    st.integers(1, 12).flatmap(lambda k: st.sampled_from([2**k - 1, 2**k, 2**k + 1])),
)
SEEDS = st.integers(0, 2**63 - 1)


def epoch(size, seed, number=0):
    return visit_order(np.arange(number * size, (number + 1) * size), size, seed)


@given(SIZES, SEEDS, st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_every_epoch_holds_each_example_once(size, seed, number):
    order = epoch(size, seed, number)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(size))


@given(SIZES, SEEDS, st.lists(st.integers(0, 10**6), max_size=30))
@settings(max_examples=80, deadline=None)
def test_a_position_does_not_depend_on_the_others_asked_for(size, seed, positions):
    together = visit_order(np.array(positions, np.int64), size, seed)
    alone = [visit_order(np.array([p]), size, seed)[0] for p in positions]
    assert together.tolist() == alone


@given(st.integers(1, 30), SEEDS, st.integers(1, 70), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_batch_goes_on_into_the_next_epoch(size, seed, batch, step):
    """Also for a pool smaller than a batch, which then holds several epochs."""
    start, end = step * batch, (step + 1) * batch
    first, last = start // size, (end - 1) // size
    stream = np.concatenate([epoch(size, seed, n) for n in range(first, last + 1)])
    expected = stream[start - first * size : end - first * size]
    assert np.array_equal(visit_order(np.arange(start, end), size, seed), expected)


def test_far_positions_of_a_large_pool():
    size = 10**9 + 7
    order = visit_order(np.arange(10**15, 10**15 + 20_000), size, 3)
    assert order.min() >= 0
    assert order.max() < size
    assert len(np.unique(order)) == 20_000
    assert abs(order.mean() / size - 0.5) < 0.02


def test_seeds_and_epochs_give_unrelated_orders():
    orders = [epoch(1000, seed, number) for seed in (0, 1, 2, 2**40) for number in range(3)]
    for a, b in itertools.combinations(orders, 2):
        # Two independent permutations agree in one place on average; 9 or more: p < 2e-6.
        assert (a == b).sum() < 9
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.2


@pytest.mark.parametrize("size", [2, 3, 4])
def test_small_permutations_are_all_about_equally_likely(size):
    orders = visit_order(np.arange(1200 * size), size, 0).reshape(1200, size)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(size)
    assert (np.abs(counts * len(counts) / 1200 - 1) < 0.5).all()


@pytest.mark.parametrize("size", [16, 17, 100, 256])
def test_every_example_comes_everywhere_and_neighbours_part(size):
    orders = np.array([epoch(size, seed) for seed in range(400)])
    # The mean place of each example over 400 seeds: normal, with this standard deviation.
    spread = np.sqrt((size**2 - 1) / 12 / 400)
    assert (np.abs(orders.mean(0) - (size - 1) / 2) < 5 * spread).all()
    following = np.mean(np.diff(orders, axis=1) == 1)  # 1/size by chance
    assert following < 1.5 / size


def test_mix_is_a_bijection_that_changes_half_the_bits():
    x = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mix(x))) == len(x)
    flipped = np.bitwise_count(mix(x) ^ mix(x ^ np.uint64(1)))
    assert abs(flipped.mean() - 32) < 0.1
    # The first output of the reference generator (splitmix64.c) seeded with 0 and with 1234567.
    known = [0xE220A8397B1DCDAF, 0x599ED017FB08FC85]
    assert mix(np.array([0, 1234567], np.uint64)).tolist() == known
