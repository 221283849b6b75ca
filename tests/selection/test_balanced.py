"""Balanced sampling against a slow transcription of Algorithm 1 and of the official rule."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.selection import priorities
from s2l_jax.selection.balanced import (
    balanced_order,
    balanced_order_of_source,
    order_by_source,
    shares,
)
from s2l_jax.selection.ranking import ranks_within

label_vectors = st.one_of(
    st.lists(st.integers(0, 8), min_size=1, max_size=60),
    # One dominant cluster, many tiny ones.
    st.integers(0, 40).map(lambda size: [0] * size + list(range(1, 12)) * 2 + [12, 13]),
)


def algorithm_1(labels, budget):
    """The paper's Algorithm 1, one cluster after the other: how many each gives."""
    clusters = {}
    for label in labels:
        clusters[label] = clusters.get(label, 0) + 1
    by_size = sorted(clusters, key=lambda cluster: (clusters[cluster], cluster))
    picked, subset = {}, 0
    for k, cluster in enumerate(by_size, start=1):
        fair = (budget - subset) // (len(by_size) - k + 1)
        picked[cluster] = clusters[cluster] if clusters[cluster] <= fair else fair
        subset += picked[cluster]
    return picked


def official_source(labels, budget, min_cluster_size):
    """The official code within one source: how many each cluster gives, and what is left over."""
    names, counts = np.unique(labels, return_counts=True)
    large = sorted(
        (count, name) for name, count in zip(names, counts, strict=True) if count > min_cluster_size
    )
    picked = {}
    for position, (count, name) in enumerate(large):
        picked[name] = min(count, budget // (len(large) - position))
        budget -= picked[name]
    return picked, budget


def drawn(order, budget):
    """The first rows of an order, as marks."""
    assert sorted(order.tolist()) == list(range(len(order)))
    taken = np.zeros(len(order), bool)
    taken[order[:budget]] = True
    return taken


def counted(labels, taken):
    names, counts = np.unique(np.asarray(labels)[taken], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(label_vectors, st.integers(1, 90), st.integers(0, 2**40))
def test_counts_equal_algorithm_1(labels, budget, seed):
    priority = priorities(np.arange(len(labels)), seed)
    taken = drawn(balanced_order(np.array(labels), priority), budget)
    assert taken.sum() == min(budget, len(labels))
    expected = {name: count for name, count in algorithm_1(labels, budget).items() if count}
    assert counted(labels, taken) == expected
    for cluster in expected:  # of each cluster those of smallest priority
        rows = np.flatnonzero(np.array(labels) == cluster)
        assert priority[rows[taken[rows]]].max() <= priority[rows[~taken[rows]]].min(initial=2**64 - 1)


@settings(max_examples=150, deadline=None)
@given(label_vectors, st.integers(1, 90), st.integers(0, 2**40), st.integers(0, 3))
def test_counts_equal_the_official_rule(labels, budget, seed, min_cluster_size):
    budget = min(budget, len(labels))
    priority = priorities(np.arange(len(labels)), seed)
    order = balanced_order_of_source(np.array(labels), priority, min_cluster_size=min_cluster_size)
    taken = drawn(order, budget)
    assert taken.sum() == budget
    picked, left = official_source(labels, budget, min_cluster_size)
    result = counted(labels, taken)
    assert {name: result.pop(name, 0) for name in picked} == picked
    assert sum(result.values()) == left  # from clusters left until last


@settings(max_examples=60, deadline=None)
@given(label_vectors, label_vectors, st.integers(0, 9))
def test_one_order_holds_the_draw_of_every_budget(labels, sources, seed):
    size = min(len(labels), len(sources))
    labels, sources = np.array(labels[:size]), np.unique(sources[:size], return_inverse=True)[1]
    priority = priorities(np.arange(size), seed)
    order = balanced_order(labels, priority)
    by_source = []
    for source in range(sources.max() + 1):
        rows = np.flatnonzero(sources == source)
        by_source.append(rows[balanced_order_of_source(labels[rows], priority[rows])])
    nested = order_by_source(sources, by_source)
    for budget in range(1, size + 1):
        expected = {name: count for name, count in algorithm_1(labels.tolist(), budget).items() if count}
        assert counted(labels, drawn(order, budget)) == expected
        taken = drawn(nested, budget)
        for source, share in algorithm_1(sources.tolist(), budget).items():
            # Within a source they are the first of its own order.
            assert set(by_source[source][:share]) == set(np.flatnonzero(taken & (sources == source)))


def test_ranks_within_groups():
    groups, place = np.array([0, 1, 0, 1, -1, 0]), np.array([4, 0, 1, -1, 2, 3])
    assert ranks_within(groups, place).tolist() == [2, 0, 0, -1, -1, 1]


def test_few_changed_labels_change_few_picks():
    rng = np.random.default_rng(0)
    labels = rng.integers(100, size=50_000)
    changed = labels.copy()
    changed[rng.choice(len(labels), 50, replace=False)] = rng.integers(100, size=50)
    priority = priorities(np.arange(len(labels)), 0)
    first, second = (drawn(balanced_order(each, priority), 10_000) for each in (labels, changed))
    assert (first & second).sum() / (first | second).sum() > 0.99


def test_priorities_are_even_and_independent():
    for ids in (np.arange(50_000), np.arange(50_000) * 2**40 + 7):
        low, other = priorities(ids, 0), priorities(ids, 1)
        assert len(np.unique(low)) == len(ids)
        for values in (low, other, low ^ other):
            # Every bit is set about half of the time, and neighbours are not alike.
            bits = np.unpackbits(values.view(np.uint8)).reshape(len(ids), 64).mean(0)
            assert abs(bits - 0.5).max() < 0.012
        scaled = low / 2.0**64
        assert abs(np.histogram(scaled, 20, (0, 1))[0] - 2500).max() < 250
        assert abs(np.corrcoef(scaled[1:], scaled[:-1])[0, 1]) < 0.02
        assert abs(np.corrcoef(scaled, other / 2.0**64)[0, 1]) < 0.02
    assert priorities([5, 6], 3).tolist() == priorities([6, 5], 3)[::-1].tolist()
    assert priorities([5], 3) != priorities([5], 3 + 2**63)


def test_shares_by_hand():
    assert shares(np.array([10, 1, 4, 4]), 12).tolist() == [4, 1, 3, 4]
    assert shares(np.array([3, 3, 3]), 7).tolist() == [2, 2, 3]
    assert shares(np.array([3, 3]), 100).tolist() == [3, 3]
    assert shares(np.array([5, 5, 5]), 2).tolist() == [0, 1, 1]
