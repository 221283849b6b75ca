"""Budgets: fractions, tokens, and smaller subsets inside larger ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.errors import InputError
from s2l_jax.selection import Selection, SelectionInputs, select


def inputs(size=300, seed=0):
    rng = np.random.default_rng(seed)
    return SelectionInputs(
        trajectories=rng.gamma(2, 1, (size, 4)).astype(np.float32),
        sources=rng.choice(["a", "b", "c"], p=[0.7, 0.2, 0.1], size=size).tolist(),
        num_tokens=rng.integers(5, 200, size),
    )


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 30), (0.001, 1), (0.999, 300), (0.5, 150)])
def test_a_fraction_of_the_pool(fraction, count):
    chosen = select(inputs(), fraction, method="random")
    assert np.array_equal(chosen.indices, select(inputs(), count, method="random").indices)
    assert (chosen.budget, chosen.unit) == (fraction, "examples")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.integers(1, 700),
    st.sampled_from(["random", "least_confidence"]),
)
def test_tokens_are_taken_up_to_the_first_row_that_does_not_fit(tokens, budget, method):
    losses = np.arange(len(tokens), dtype=np.float32)[:, None]
    given = SelectionInputs(trajectories=losses, num_tokens=tokens)
    order = select(given, len(tokens), method=method).order.tolist()
    taken, total = [], 0
    for row in order:
        if total + tokens[row] > budget:
            break
        taken.append(row)
        total += tokens[row]
    if not taken:
        with pytest.raises(InputError, match=f"a budget of {budget} tokens is too small for"):
            select(given, budget, unit="tokens", method=method)
        return
    chosen = select(given, budget, unit="tokens", method=method)
    assert chosen.order.tolist() == taken
    assert chosen.indices.tolist() == sorted(taken)


@pytest.mark.parametrize("stratify_by", ["source", "none"])
def test_a_token_budget_of_s2l_is_balanced_as_its_number_of_examples_would_be(stratify_by):
    given = inputs()
    by_tokens = select(given, 8_000, unit="tokens", num_clusters=6, stratify_by=stratify_by)
    spent = given.num_tokens[by_tokens.indices].sum()
    assert 8_000 - 200 < spent <= 8_000
    by_count = select(given, len(by_tokens.indices), num_clusters=6, stratify_by=stratify_by)
    assert np.array_equal(by_tokens.indices, by_count.indices)


METHODS = ["s2l", "random", "least_confidence", "confidence_curriculum", "cartography"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["examples", "fraction", "tokens"])
def test_the_first_rows_of_a_subset_are_the_subset_of_the_smaller_budget(method, kind):
    given = inputs()
    options = {"num_clusters": 6, "stratify_by": "none"} if method == "s2l" else {}
    large = select(given, 200, method=method, **options)
    budget, unit = {"examples": (77, "examples"), "fraction": (0.2, "examples"), "tokens": (5_000, "tokens")}[
        kind
    ]
    small = large.first(budget, unit=unit)
    direct = select(given, budget, unit=unit, method=method, **options)
    for name in ("indices", "weights", "labels", "ranks"):
        assert np.array_equal(getattr(small, name), getattr(direct, name)), name
    assert set(small.indices) < set(large.indices)
    assert (small.budget, small.unit) == (budget, unit)


def test_nested_after_loading(tmp_path):
    large = select(inputs(), 200, num_clusters=6)
    large.save(tmp_path)
    loaded = Selection.load(tmp_path)
    for budget in (150, 0.1):
        assert np.array_equal(loaded.first(budget).indices, large.first(budget).indices)
    assert np.array_equal(loaded.first(900, unit="tokens").indices, large.first(900, unit="tokens").indices)


def test_reasons_hold_in_a_smaller_subset(tmp_path):
    losses = np.random.default_rng(0).gamma(2, 1, (100, 4)).astype(np.float32)
    large = select(losses, 45, num_clusters=5, sources=["a"] * 10 + ["b"] * 90)
    large.save(tmp_path)
    for each in (large, Selection.load(tmp_path)):
        small = each.first(9)
        assert ((each.indices < 10).sum(), (small.indices < 10).sum()) == (10, 4)
        for subset in (each, small):
            assert said_of(subset, slice(10)) == {"drawn at random: its source was not clustered"}
            assert said_of(subset, slice(10, 100)) >= {"its cluster's share"}


def said_of(chosen, rows):
    return {chosen.reasons[code] for code in chosen.reason_of[rows]}


@pytest.mark.parametrize(
    ("method", "name", "kept"),
    [("facility_location", "objective", {"evaluation"}), ("diverse_evol", "radius", set())],
)
def test_notes_of_a_subset_are_of_no_smaller_one(method, name, kept, tmp_path):
    given = SelectionInputs(
        hidden_states=np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32),
        num_tokens=np.random.default_rng(1).integers(5, 200, 100),
    )
    large = select(given, 30, method=method)
    large.save(tmp_path)
    for each in (large, Selection.load(tmp_path)):
        assert set(each.notes) == set(each.first(30).notes) == {name} | kept
        assert set(each.first(3).notes) == kept
    # Ranked are as many rows as the budget can come to, and these do not fit.
    assert set(select(given, 1_000, unit="tokens", method=method).notes) == kept
    whole = int(given.num_tokens.sum())
    of_all = select(given, whole, unit="tokens", method=method)
    assert of_all.notes == select(given, 100, method=method).notes


def test_notes_of_the_pool_are_of_smaller_subsets_too():
    large = select(inputs(), 60, method="random", drop_rising=True)
    assert large.first(5).notes == large.notes == {"num_left_out": large.num_left_out}


@pytest.mark.parametrize(
    ("budget", "unit", "message"),
    [
        (61, "examples", "a budget of 61 examples does not fit into this subset of 60"),
        (0.5, "examples", "a budget of 150 examples does not fit into this subset of 60"),
        (10**6, "tokens", "a budget of 1000000 tokens does not fit"),
        (1, "tokens", "too small for the first example"),
        (0, "examples", "at least 1"),
    ],
)
def test_what_does_not_nest(budget, unit, message):
    with pytest.raises(InputError, match=message):
        select(inputs(), 60, method="random").first(budget, unit=unit)
