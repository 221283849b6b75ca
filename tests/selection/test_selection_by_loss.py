"""Baselines that rank by losses or lengths, each against a slow transcription of its definition."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.errors import InputError
from s2l_jax.selection import SelectionInputs, priorities, select


def case(size, columns, seed, levels):
    """Losses that may be tied (`levels` > 0), ids, and the rank of each row in draws."""
    rng = np.random.default_rng(seed)
    losses = rng.gamma(2, 1, (size, columns)) if not levels else rng.integers(0, levels, (size, columns)) / 2
    ids = rng.permutation(10 * size)[:size].astype(np.uint64)
    return losses.astype(np.float32), ids


cases = st.builds(case, st.integers(1, 25), st.integers(2, 5), st.integers(0, 999), st.sampled_from([0, 3]))


def ordered(losses, ids, key, seed=4):
    """Row numbers by a key of a row's losses, ties by priority."""
    priority = priorities(ids, seed)
    keys = [(key(list(map(float, row))), int(priority[number])) for number, row in enumerate(losses)]
    return sorted(range(len(losses)), key=lambda row: keys[row])


def order_of(losses, ids, method, **options):
    inputs = SelectionInputs(trajectories=losses, ids=ids)
    chosen = select(inputs, len(losses), method=method, seed=4, **options)
    assert chosen.indices.tolist() == list(range(len(losses)))
    return chosen.order.tolist()


def mean(values):
    return math.fsum(values) / len(values)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_least_confidence(given):
    losses, ids = given
    assert order_of(losses, ids, "least_confidence") == ordered(losses, ids, lambda row: -row[-1])


@settings(max_examples=40, deadline=None)
@given(cases)
def test_middle_perplexity(given):
    losses, ids = given
    by_loss = ordered(losses, ids, lambda row: row[-1])
    middle = (len(losses) - 1) / 2
    priority = priorities(ids, 4)
    expected = sorted(range(len(losses)), key=lambda r: (abs(by_loss.index(r) - middle), priority[r]))
    assert order_of(losses, ids, "middle_perplexity") == expected


@settings(max_examples=40, deadline=None)
@given(cases)
def test_high_learnability(given):
    losses, ids = given
    expected = ordered(losses, ids, lambda row: -(row[0] - row[-1]))
    assert order_of(losses, ids, "high_learnability") == expected


@settings(max_examples=40, deadline=None)
@given(cases, st.sampled_from([0.0, 0.4]))
def test_forgetting(given, margin):
    losses, ids = given

    def events(row):
        rises = [b - a for a, b in itertools.pairwise(row) if b - a > margin]
        return -len(rises), -sum(rises)

    assert order_of(losses, ids, "forgetting", margin=margin) == ordered(losses, ids, events)


@settings(max_examples=60, deadline=None)
@given(cases, st.sampled_from(["ambiguous", "easy", "hard"]))
def test_cartography(given, region):
    losses, ids = given

    def score(row):
        sure = [math.exp(-loss) for loss in row]
        if region == "ambiguous":
            return math.sqrt(mean([(p - mean(sure)) ** 2 for p in sure]))
        return mean(sure) if region == "easy" else -mean(sure)

    chosen = select(
        SelectionInputs(trajectories=losses, ids=ids), len(ids), method="cartography", region=region
    )
    expected = [score(list(map(float, row))) for row in losses]
    np.testing.assert_allclose(chosen.scores, expected, atol=1e-6)
    ranked = [expected[row] for row in chosen.order]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(ranked))


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(1, 2))
def test_early_loss(given, early):
    losses, ids = given
    chosen = select(SelectionInputs(trajectories=losses, ids=ids), len(ids), method="early_loss", early=early)
    expected = [mean([1 - math.exp(-loss) for loss in map(float, row[:early])]) for row in losses]
    np.testing.assert_allclose(chosen.scores, expected, atol=1e-6)
    ranked = [expected[row] for row in chosen.order]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(ranked))


def slow_curriculum(losses, ids, seed):
    """Stage by stage: who belongs to it, then turns from the largest stage to the smallest."""
    size, stages = losses.shape
    priority = priorities(ids, seed)
    members, claimed = [], set()
    for t in range(stages):
        ranked = sorted(range(size), key=lambda row: (losses[row, t], priority[row]))
        band = ranked[size * t // stages : size * (t + 1) // stages]
        members.append(sorted((row for row in band if row not in claimed), key=lambda row: priority[row]))
        claimed.update(band)
    rest = sorted(set(range(size)) - claimed, key=lambda row: priority[row])
    turns = sorted((t for t in range(stages) if members[t]), key=lambda t: (-len(members[t]), -t))
    order = [members[t][i] for i in range(size) for t in turns if i < len(members[t])]
    return order + rest, members


@settings(max_examples=60, deadline=None)
@given(cases)
def test_confidence_curriculum(given):
    losses, ids = given
    order, members = slow_curriculum(losses, ids, 4)
    assert order_of(losses, ids, "confidence_curriculum") == order
    chosen = select(SelectionInputs(trajectories=losses, ids=ids), 1, method="confidence_curriculum", seed=4)
    for stage, rows in enumerate(members):
        assert (chosen.labels[rows] == stage).all()
        if rows:
            np.testing.assert_allclose(chosen.centroids[stage], losses[rows].mean(0), rtol=1e-5)


def test_confidence_falls_from_stage_to_stage():
    rng = np.random.default_rng(0)
    losses = np.abs(rng.normal(2, 1, (3000, 1)) + rng.normal(0, 0.1, (3000, 4)))
    chosen = select(losses, 400, method="confidence_curriculum")
    last = [losses[chosen.indices[chosen.labels[chosen.indices] == t], -1].mean() for t in range(4)]
    assert last == sorted(last)
    assert chosen.picked_per_cluster.tolist() == [100, 100, 100, 100, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 35))
def test_longest(lengths, budget):
    ids = np.arange(len(lengths), dtype=np.uint64)
    chosen = select(SelectionInputs(response_tokens=lengths), budget, method="longest", seed=4)
    expected = ordered([[n] for n in lengths], ids, lambda row: -row[0])[:budget]
    assert chosen.order.tolist() == expected


@pytest.mark.parametrize(
    "method",
    ["least_confidence", "middle_perplexity", "high_learnability", "forgetting", "cartography", "early_loss"],
)
def test_ties_go_by_priority_and_so_by_seed(method):
    losses, ids = np.ones((40, 3), np.float32), np.arange(100, 140, dtype=np.uint64)
    inputs = SelectionInputs(trajectories=losses, ids=ids)
    # The middle of the pool is one place, and priority decides who stands there.
    for seed in (0, 1):
        chosen = set(select(inputs, 10, method=method, seed=seed).indices.tolist())
        by_priority = np.argsort(priorities(ids, seed))
        assert chosen == set(
            (by_priority[15:25] if method == "middle_perplexity" else by_priority[:10]).tolist()
        )


@pytest.mark.parametrize(("checkpoint", "column"), [("first", 0), ("last", 3), ("200", 1)])
def test_a_checkpoint_is_chosen_by_place_or_step(checkpoint, column):
    losses = np.random.default_rng(0).gamma(2, 1, (60, 4)).astype(np.float32)
    known = SelectionInputs(trajectories=losses, trajectory_steps=[100, 200, 300, 400])
    chosen = select(known, 10, method="least_confidence", checkpoint=checkpoint)
    assert set(chosen.indices) == set(np.argsort(-losses[:, column])[:10])
    chosen = select(known, 10, method="middle_perplexity", checkpoint=checkpoint)
    assert set(chosen.indices) == set(np.argsort(losses[:, column])[25:35])


@pytest.mark.parametrize("checkpoint", ["5", "250", "middle", "-1"])
def test_a_checkpoint_that_there_is_not(checkpoint):
    losses = np.ones((20, 4), np.float32)
    with pytest.raises(InputError, match=f"'{checkpoint}': no such checkpoint; use .* step of 1, 2, 3, 4"):
        select(losses, 10, method="least_confidence", checkpoint=checkpoint)
