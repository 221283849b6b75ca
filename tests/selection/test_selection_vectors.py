"""Methods on hidden states and gradients, each against a slow transcription of its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.errors import InputError
from s2l_jax.selection import SelectionInputs, priorities, select
from s2l_jax.selection.baselines.semdedup import find_duplicates
from s2l_jax.selection.baselines.unit_rows import unit_rows
from s2l_jax.selection.kernels.k_center import k_center


def vectors(size, columns, seed, *, repeat=False):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, columns))
    if repeat:
        rows[rng.integers(0, size, size // 2)] = rows[0]
    return rows.astype(np.float32)


def cosines(rows, others):
    rows, others = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, others))
    return rows.astype(float) @ others.astype(float).T


def objective(similarity, chosen):
    return similarity[:, chosen].max(1).mean() if len(chosen) else 0.0


def naive_greedy(similarity, count):
    chosen = []
    for _ in range(count):
        left = [j for j in range(len(similarity)) if j not in chosen]
        chosen.append(max(left, key=lambda j: objective(similarity, [*chosen, j])))
    return chosen


small = st.builds(
    lambda size, seed, repeat: vectors(size, 4, seed, repeat=repeat),
    st.sampled_from([1, 2, 5, 11, 18]),  # each size is a program of its own
    st.integers(0, 999),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(small, st.integers(1, 18))
def test_lazy_facility_location_is_greedy(rows, budget):
    similarity = (1 + cosines(rows, rows)) / 2
    count = min(budget, len(rows))
    chosen = select(SelectionInputs(hidden_states=rows), budget, method="facility_location")
    assert len(set(chosen.order.tolist())) == count
    reached = objective(similarity, chosen.order)
    assert reached >= objective(similarity, naive_greedy(similarity, count)) - 1e-6
    assert chosen.notes["objective"] == pytest.approx(reached, abs=1e-5)
    # Every step adds as much as the best one could: greedy up to ties.
    for step in range(count):
        before = chosen.order[:step].tolist()
        best = max(objective(similarity, [*before, j]) for j in range(len(rows)) if j not in before)
        assert objective(similarity, [*before, chosen.order[step]]) >= best - 1e-6


def best_of_all(similarity, count):
    import itertools

    subsets = itertools.combinations(range(len(similarity)), count)
    return max(objective(similarity, list(subset)) for subset in subsets)


def test_lazy_facility_location_keeps_its_guarantee():
    for seed in range(12):
        rows = vectors(14, 3, seed)
        similarity = (1 + cosines(rows, rows)) / 2
        chosen = select(SelectionInputs(hidden_states=rows), 4, method="facility_location", evaluation="lazy")
        assert objective(similarity, chosen.order) >= (1 - 1 / math.e) * best_of_all(similarity, 4)


@pytest.mark.parametrize("epsilon", [0.3, 0.05])
def test_stochastic_facility_location_keeps_its_guarantee(epsilon):
    ratios = []
    for seed in range(12):
        rows = vectors(14, 3, seed)
        similarity = (1 + cosines(rows, rows)) / 2
        chosen = select(
            SelectionInputs(hidden_states=rows), 4, method="facility_location", seed=seed,
            evaluation="stochastic", epsilon=epsilon,
        )  # fmt: skip
        ratios.append(objective(similarity, chosen.order) / best_of_all(similarity, 4))
    assert np.mean(ratios) >= 1 - 1 / math.e - epsilon  # in expectation
    assert np.mean(ratios) > 0.9  # far better in practice
    assert len(chosen.indices) == 4


def test_facility_location_is_chunked_without_a_difference(monkeypatch):
    import s2l_jax.selection.kernels.facility as module

    rows = vectors(700, 5, 1)
    for evaluation in ("lazy", "stochastic"):

        def run(evaluation=evaluation):
            return select(
                SelectionInputs(hidden_states=rows), 40, method="facility_location", evaluation=evaluation
            )  # fmt: skip

        whole = run()
        with monkeypatch.context() as patch:
            patch.setattr(module, "_ELEMENTS", 256 * 64)
            patch.setattr(module, "_CANDIDATES", 16)
            patch.setattr(module, "_KEPT", 0)
            parts = run()
        assert parts.notes["objective"] == pytest.approx(whole.notes["objective"], abs=1e-4)
        assert len(set(whole.order) & set(parts.order)) > 30
    everything = select(SelectionInputs(hidden_states=rows), 700, method="facility_location",
                        evaluation="stochastic")  # fmt: skip
    assert everything.notes["objective"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="'facility_location' does not nest"):
        everything.first(40)


def slow_k_center(rows, chosen, count):
    order = list(chosen)
    while len(order) < count:
        far = [min(np.sum((row - rows[j]) ** 2) for j in order) for row in rows]
        order.append(max((i for i in range(len(rows)) if i not in order), key=lambda i: far[i]))
    return order, math.sqrt(max(min(np.sum((row - rows[j]) ** 2) for j in order) for row in rows))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 4, 20]), st.integers(0, 999), st.sampled_from([1, 3, 7, 20]), st.integers(1, 4))
def test_k_center(size, seed, count, initial):
    rows = np.random.default_rng(seed).integers(-50, 50, (size, 3)).astype(np.float32)
    count = min(count, size)
    begin = np.argsort(priorities(np.arange(size), seed))[: min(initial, count)]
    order, radius = k_center(rows, begin, count)
    expected, slow_radius = slow_k_center(rows.astype(float), begin.tolist(), count)
    assert order.tolist() == expected
    assert radius == pytest.approx(slow_radius, rel=1e-5)
    chosen = select(
        SelectionInputs(hidden_states=rows), count, method="diverse_evol", initial=initial, seed=seed
    )
    assert chosen.order.tolist() == expected


def test_diverse_evol_embeds_anew_in_each_round():
    rng = np.random.default_rng(0)
    rows, asked = rng.normal(size=(4, 40, 3)).astype(np.float32), []

    def embed(chosen):
        asked.append(chosen.tolist())
        return rows[len(asked) - 1]

    given = SelectionInputs(ids=np.arange(40), embed=embed)
    chosen = select(given, 21, method="diverse_evol", initial=5, rounds=4, seed=2)
    expected = np.argsort(priorities(np.arange(40), 2))[:5].tolist()
    for states, size in zip(rows, (9, 13, 17, 21), strict=True):
        assert asked.pop(0) == expected
        expected, _ = slow_k_center(states.astype(float), expected, size)
    assert chosen.order.tolist() == expected
    assert not chosen.nested
    for wrong in (np.ones((39, 2)), np.ones(40), None, np.full((40, 2), np.nan)):
        short = SelectionInputs(ids=np.arange(40), embed=lambda rows, wrong=wrong: wrong)
        with pytest.raises(InputError, match="must be finite, and one vector an example"):
            select(short, 5, method="diverse_evol", initial=2)


def slow_duplicates(rows, labels, centroids, threshold):
    found = np.zeros(len(rows), bool)
    for cluster, centroid in enumerate(centroids):
        own = [i for i in range(len(rows)) if labels[i] == cluster]
        own.sort(key=lambda i: (float(rows[i].astype(float) @ centroid.astype(float)), i))
        for place, row in enumerate(own):
            found[row] = any(float(rows[row] @ rows[other]) > threshold for other in own[:place])
    return found


@settings(max_examples=40, deadline=None)
@given(small, st.integers(1, 3), st.sampled_from([0.3, 0.9]))
def test_semdedup(rows, num_clusters, threshold):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_clusters, len(rows))
    centroids = rng.normal(size=(num_clusters, 4)).astype(np.float32)
    expected = slow_duplicates(rows, labels, centroids, threshold)
    assert find_duplicates(rows, labels, centroids, threshold).tolist() == expected.tolist()
    inputs = SelectionInputs(hidden_states=rows)
    chosen = select(
        inputs, len(rows), method="semdedup", num_clusters=num_clusters, threshold=threshold, seed=3
    )
    # Two rows of a cluster are equally like its centroid up to rounding: no other computation of it will do.
    unit = unit_rows(rows, "rows")
    duplicate = find_duplicates(unit, chosen.labels, chosen.centroids, threshold)
    priority = priorities(np.arange(len(rows)), 3)
    order = sorted(range(len(rows)), key=lambda i: (duplicate[i], priority[i]))
    assert chosen.order.tolist() == order
    assert chosen.notes["num_duplicates"] == duplicate.sum()


def test_semdedup_in_blocks(monkeypatch):
    import s2l_jax.selection.baselines.semdedup as module

    rows = vectors(60, 3, 0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels, centroids = np.zeros(60, int), rows[:1]
    whole = find_duplicates(rows, labels, centroids, 0.8)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    assert find_duplicates(rows, labels, centroids, 0.8).tolist() == whole.tolist()
    assert 0 < whole.sum() < 60


def slow_turns(similarity, priority, count):
    """Each query in turn adds the next of its list; one that is there already adds none."""
    lists = [sorted(range(len(priority)), key=lambda i: (-row[i], priority[i])) for row in similarity]
    order = []
    for place in range(len(priority)):
        for ranked in lists:
            if ranked[place] not in order:
                order.append(ranked[place])
    return order[:count]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 999), st.integers(1, 25))
def test_rds(size, num_queries, seed, budget):
    rows, queries = vectors(size, 3, seed, repeat=True), vectors(num_queries, 3, seed + 1)
    inputs = SelectionInputs(hidden_states=rows, query_states=queries)
    chosen = select(inputs, budget, method="rds", seed=1)
    similarity = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
    ).T
    similarity = np.round(similarity, 5)  # repeated rows tie
    expected = slow_turns(similarity, priorities(np.arange(size), 1), min(budget, size))
    taken = [similarity[:, row].max() for row in chosen.order]
    np.testing.assert_allclose(taken, [similarity[:, row].max() for row in expected], atol=2e-5)
    assert len(set(chosen.order.tolist())) == min(budget, size)
    if len(np.unique(rows, axis=0)) == size:
        assert chosen.order.tolist() == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 15), st.integers(1, 6), st.integers(1, 3), st.integers(0, 999), st.booleans())
def test_less(size, num_queries, checkpoints, seed, by_task):
    rng = np.random.default_rng(seed)
    own, queries = (rng.normal(size=(n, checkpoints, 4)).astype(np.float32) for n in (size, num_queries))
    tasks = rng.integers(0, 2, num_queries) if by_task else np.zeros(num_queries, int)
    rates = rng.uniform(0.1, 1, checkpoints)
    scores = []
    for row in own:
        by = []
        for task in np.unique(tasks):
            total = 0.0
            for c in range(checkpoints):
                mean = queries[tasks == task, c].astype(float).mean(0)
                total += rates[c] * (row[c] @ mean) / np.linalg.norm(row[c]) / np.linalg.norm(mean)
            by.append(total)
        scores.append(max(by))
    chosen = select(
        SelectionInputs(gradients=own, query_gradients=queries, query_tasks=tasks, checkpoint_weights=rates),
        size,
        method="less",
    )
    np.testing.assert_allclose(chosen.scores, scores, atol=1e-5)
    ranked = np.array(scores)[chosen.order]
    assert (np.diff(ranked) <= 1e-6).all()


STATES = vectors(6, 3, 0)
ZERO = np.where(np.arange(6)[:, None] == 2, 0, STATES).astype(np.float32)


@pytest.mark.parametrize(
    ("inputs", "arguments", "message"),
    [
        ({}, {"method": "facility_location"}, "needs hidden_states.*with a pool and a model"),
        ({"hidden_states": STATES}, {"method": "rds"}, "needs query_states.*set selection.queries"),
        ({"hidden_states": STATES}, {"method": "less"}, "needs gradients.*with a pool and a target"),
        ({"hidden_states": ZERO}, {"method": "facility_location"}, "row 2 is all zeros and has no direction"),
        ({"hidden_states": ZERO}, {"method": "semdedup"}, "row 2 is all zeros"),
        ({"hidden_states": STATES}, {"method": "facility_location", "evaluation": "fast"}, "got 'fast'"),
        ({"hidden_states": STATES}, {"method": "facility_location", "epsilon": 1.0}, "below 1, got 1.0"),
        ({"hidden_states": STATES}, {"method": "semdedup", "threshold": 2.0}, "-1 and at most 1, got 2"),
        ({"hidden_states": STATES}, {"method": "diverse_evol", "initial": 0}, "at least 1, got 0"),
        (
            {"hidden_states": STATES, "query_states": STATES[:, :2]},
            {"method": "rds"},
            r"hidden_states have shape \(6, 3\) and query_states \(6, 2\)",
        ),
        (
            {"gradients": np.ones((6, 2, 3)), "query_gradients": np.ones((2, 2, 3)), "query_tasks": ["a"]},
            {"method": "less"},
            r"query_gradients have shape \(2, 2, 3\) and query_tasks \(1,\): axis 'Q' must be the same",
        ),
        (
            {"gradients": np.ones((6, 2, 3)), "query_gradients": np.ones((2, 2, 3)),
             "checkpoint_weights": [1.0]},
            {"method": "less"},
            r"gradients have shape \(6, 2, 3\) and checkpoint_weights \(1,\): axis 'C'",
        ),
        ({"gradients": np.ones((6, 3))}, {"method": "less"}, "needs query_gradients"),
        (
            {"hidden_states": STATES, "query_states": STATES[:0]},
            {"method": "rds"},
            "query_states has no rows: give at least one example",
        ),
        (
            {"gradients": np.ones((6, 2, 3)), "query_gradients": np.ones((0, 2, 3))},
            {"method": "less"},
            "query_gradients has no rows",
        ),
        ({"hidden_states": np.full((6, 3), np.nan)}, {"method": "semdedup"}, "drop these examples$"),
        (
            {"gradients": np.ones((6, 3)), "query_gradients": np.ones((2, 2, 3))},
            {"method": "less"},
            r"gradients must be a number array \[N, C, P\]",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(inputs, arguments, message):
    inputs = {"ids": np.arange(6)} | inputs
    with pytest.raises(InputError, match=message):
        select(SelectionInputs(**inputs), 2, **arguments)
