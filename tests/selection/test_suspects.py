"""Mislabelled examples: found among learnt ones, within their source, whatever the source's scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s2l_jax
from s2l_jax.errors import InputError
from s2l_jax.selection import METHODS, SelectionInputs, select
from s2l_jax.selection.suspects import num_unlearnt


def area_under_curve(scores, positive):
    """The chance that a positive has a higher score than a negative."""
    order = np.argsort(np.argsort(scores, kind="stable"))
    above = order[positive].sum() - positive.sum() * (positive.sum() - 1) / 2
    return above / (positive.sum() * (~positive).sum())


def pool_of(seed, num_rows=2000, columns=12):
    """Trajectories of an easy and of a hard source, 3 % of whose rows are never learnt."""
    rng = np.random.default_rng(seed)
    hard, wrong = rng.random(num_rows) < 0.4, rng.random(num_rows) < 0.03
    start = np.where(hard, 3.0, 1.0) * rng.gamma(20, 1 / 20, num_rows)
    rate = np.where(wrong, 0.01, np.where(hard, 0.03, 0.05) * rng.gamma(6, 1, num_rows))
    losses = start[:, None] * np.exp(-rate[:, None] * np.arange(columns)) + rng.gamma(
        2, 0.02, (num_rows, columns)
    )
    return losses.astype(np.float32), np.where(hard, "hard", "easy"), wrong


def test_rows_that_are_never_learnt_are_found_and_sources_tell_hard_from_wrong():
    losses, sources, wrong = pool_of(0)
    by_source = area_under_curve(s2l_jax.suspects(losses, sources), wrong)
    assert by_source > 0.95
    assert by_source > area_under_curve(s2l_jax.suspects(losses), wrong) + 0.01


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(0, 5))
def test_neither_the_scale_of_a_source_nor_the_order_of_rows_matters(seed, scale, shift):
    losses, sources, _ = pool_of(seed, num_rows=200)
    found = s2l_jax.suspects(losses, sources)
    moved = np.where((sources == "hard")[:, None], scale * losses + shift, losses)
    np.testing.assert_allclose(s2l_jax.suspects(moved, sources), found, rtol=1e-3, atol=1e-3)
    order = np.random.default_rng(seed).permutation(200)
    np.testing.assert_array_equal(s2l_jax.suspects(losses[order], sources[order]), found[order])


def test_a_small_source_is_compared_with_the_pool():
    losses, sources, _ = pool_of(1, num_rows=200)
    sources = sources.astype(object)
    sources[:3] = "few"
    np.testing.assert_array_equal(s2l_jax.suspects(losses, sources)[:3], s2l_jax.suspects(losses)[:3])


def test_equal_losses_are_no_suspects():
    losses = np.ones((50, 4), np.float32)
    assert not s2l_jax.suspects(losses).any()
    losses[7] = 2
    assert s2l_jax.suspects(losses).argmax() == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3),), r"finite losses \[N, T\]"),
        ((np.array([[np.nan]]),), r"finite losses \[N, T\]"),
        ((np.ones((3, 2)), ["a"]), "3 rows of losses and 1 sources"),
    ],
)
def test_what_cannot_be_read_is_said(arguments, message):
    with pytest.raises(InputError, match=message):
        s2l_jax.suspects(*arguments)


FILTERED = [name for name, method in METHODS.items() if method.needs <= {"trajectories"} and name != "full"]


@pytest.mark.parametrize("method", FILTERED)
def test_no_method_chooses_what_is_left_out_and_all_else_is_as_if_it_were_not_there(method):
    losses, sources, _ = pool_of(2, num_rows=300)
    inputs = SelectionInputs(trajectories=losses, sources=sources, ids=np.arange(300) + 7)
    options = {"num_clusters": 5} if method == "s2l" else {}
    chosen = s2l_jax.select(inputs, 40, method=method, drop_unlearnt=0.1, **options)
    scores = s2l_jax.suspects(losses, sources)
    left_out = np.zeros(300, bool)
    for source in ("easy", "hard"):
        rows = np.flatnonzero(sources == source)
        left_out[rows[np.argsort(-scores[rows], kind="stable")[: len(rows) // 10]]] = True
    kept = np.flatnonzero(~left_out)
    alone = s2l_jax.select(inputs.rows(kept), 40, method=method, **options)
    np.testing.assert_array_equal(chosen.indices, kept[alone.indices])
    np.testing.assert_array_equal(chosen.weights, alone.weights)
    assert set(np.flatnonzero(chosen.labels < 0)) == set(np.flatnonzero(left_out))
    assert chosen.notes["num_left_out"] == left_out.sum()


def test_rows_left_out_have_their_reason_and_score_in_the_table(tmp_path):
    losses, sources, wrong = pool_of(3, num_rows=400)
    inputs = SelectionInputs(trajectories=losses, sources=sources)
    s2l_jax.select(inputs, 50, num_clusters=5, drop_unlearnt=0.05).save(tmp_path)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "clusters.parquet").to_pandas()
    left_out = table[table["reason"].str.startswith("left: no candidate")]
    assert len(left_out) == sum(int(0.05 * (sources == source).sum()) for source in ("easy", "hard"))
    np.testing.assert_array_equal(left_out["score"], s2l_jax.suspects(losses, sources)[left_out.index])
    assert wrong[left_out.index].sum() > 0.8 * min(wrong.sum(), len(left_out))
    assert not left_out["selected"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_unlearnt": 0.5, "budget": 60}, "leaves 50 of 100 examples, fewer than the budget of 60"),
        ({"drop_unlearnt": 1.0, "budget": 6}, "must be at least 0 and below 1"),
        ({"drop_unlearnt": 0.1, "budget": 6, "method": "given"}, "needs given_rows, of all rows together"),
    ],
)
def test_a_filter_that_cannot_be_is_said(arguments, message):
    losses, _, _ = pool_of(4, num_rows=100)
    with pytest.raises(InputError, match=message):
        s2l_jax.select(losses, **{"num_clusters": 3, **arguments})


def test_random_needs_losses_to_leave_rows_out():
    with pytest.raises(InputError, match="needs trajectories"):
        s2l_jax.select(SelectionInputs(ids=np.arange(9)), 3, method="random", drop_unlearnt=0.3)


def test_a_share_that_has_no_exact_number_is_not_rounded_down_twice():
    assert num_unlearnt(None, 100, 0.29) == 29
    assert num_unlearnt(None, 1000, 0.001) == 1
    assert num_unlearnt(None, 999, 0.1) == 99


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_fraction_of_a_subset_is_one_of_what_the_subset_is_of(share):
    losses = np.random.default_rng(0).gamma(2, 1, (400, 5)).astype(np.float32)
    whole = select(losses, 0.5, num_clusters=4, drop_unlearnt=share)
    assert (whole.num_asked, whole.num_left_out) == (400, int(400 * share))
    part = whole.first(0.1)
    assert np.array_equal(part.indices, select(losses, 0.1, num_clusters=4, drop_unlearnt=share).indices)
    assert len(part.indices) == 40
