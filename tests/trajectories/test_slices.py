"""Slices of the pool: shares by source, the draw within one, and ids from files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.trajectories.slices import (
    SliceSettings,
    proportional_shares,
    read_ids,
    rows_in_pool,
    slice_rows,
    stratified_rows,
)

IDS = np.array([2**64 - 1, 5, 0, 2**63, 17, 8], np.uint64)


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=12), data=st.data())
def test_shares_follow_the_sizes(sizes, data):
    total = sum(sizes)
    count = data.draw(st.integers(0, total))
    shares = proportional_shares(np.array(sizes), count)
    assert shares.sum() == count
    assert (shares >= 0).all()
    assert (shares <= sizes).all()
    holders = np.count_nonzero(sizes)
    if count >= holders:
        assert (shares[np.array(sizes) > 0] >= 1).all()
    if count and (shares >= 1).all() and min(sizes) * count >= total:
        # Nobody was raised to 1: each has its exact part, rounded one way or the other.
        assert (abs(shares - np.array(sizes) * count / total) < 1).all()


def test_shares_by_hand():
    assert proportional_shares(np.array([600, 300, 100]), 10).tolist() == [6, 3, 1]
    assert proportional_shares(np.array([50, 50, 50]), 5).tolist() == [2, 2, 1]
    assert proportional_shares(np.array([1000, 1, 0, 1]), 10).tolist() == [8, 1, 0, 1]
    assert proportional_shares(np.array([1000, 1, 1]), 2).tolist() == [2, 0, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 100), st.data())
def test_within_a_source_the_smallest_priorities_are_taken(size, num_sources, seed, data):
    rng = np.random.default_rng(seed)
    sources, ids = rng.integers(num_sources, size=size), rng.permutation(size).astype(np.uint64)
    count = data.draw(st.integers(1, size))
    priority = priorities(ids, seed)
    rows = stratified_rows(sources, priority, count)
    assert rows.dtype == np.int64
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    shares = proportional_shares(np.bincount(sources), count)
    for source, share in enumerate(shares):
        own = np.flatnonzero(sources == source)
        want = own[np.argsort(priority[own], kind="stable")[:share]]
        assert set(rows[sources[rows] == source]) == set(want)


def test_a_slice_follows_ids_and_seed_alone():
    rng = np.random.default_rng(0)
    ids, sources = rng.permutation(400).astype(np.uint64), rng.integers(4, size=400)

    def drawn(order, seed=3, **fields):
        rows = slice_rows(SliceSettings(**fields), ids[order], sources[order], priorities(ids[order], seed))
        return set(ids[order][rows].tolist())

    here, elsewhere = np.arange(400), rng.permutation(400)
    assert drawn(here, count=100) == drawn(elsewhere, count=100)
    assert drawn(here, count=100) == drawn(here, fraction=0.25)
    assert drawn(here, count=100) != drawn(here, seed=4, count=100)
    assert drawn(here, count=40) < drawn(here, count=100)


@pytest.mark.parametrize("fields", [{}, {"count": 6}, {"count": 100}, {"fraction": 0.99}])
def test_the_whole_pool_is_no_slice(fields):
    sources = np.zeros(6, np.int64)
    assert slice_rows(SliceSettings(**fields), IDS, sources, priorities(IDS, 0)) is None


def test_a_tiny_fraction_is_one_row():
    sources = np.zeros(6, np.int64)
    assert len(slice_rows(SliceSettings(fraction=0.01), IDS, sources, priorities(IDS, 0))) == 1


@pytest.mark.parametrize("kind", ["uint64.npy", "text"])
def test_ids_from_a_file(tmp_path, kind):
    chosen = IDS[[3, 0, 4]]
    path = tmp_path / f"ids_{kind}"
    if kind == "text":
        path.write_text("\n".join(map(str, chosen)) + "\r\n\n")
    else:
        np.save(path, chosen)
    settings = SliceSettings(ids=str(path))
    assert slice_rows(settings, IDS, np.zeros(6, int), IDS).tolist() == [0, 3, 4]


def npy(array):
    def write(path):
        np.save(path, array)

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", npy(np.array([5, 6], np.uint64)), r"1 of 2 ids are not in the pool; the first: 6"),
        ("a.npy", npy(np.array([5, 5])), r"each once; found 5 among 2"),
        ("a.npy", npy(np.array([], np.int64)), r"found no ids among 0"),
        ("a.npy", npy(np.array([-1])), r"holds int64\[1\]"),
        ("a.npy", npy(np.array([5.0])), r"holds float64\[1\]"),
        ("a.npy", npy(IDS.reshape(2, 3)), r"holds uint64\[2, 3\]"),
        ("a.npy", lambda path: path.write_text("5\n"), "not a readable .npy file"),
        ("a.txt", lambda path: path.write_text("5\n\n17 8\n"), r"line 3: '17 8' is not a row id"),
        ("a.txt", lambda path: path.write_text(f"{2**64}"), r"line 1: '\d+' is not a row id"),
        ("a.txt", lambda path: path.write_bytes(b"\xff\xfe\x00"), "neither a .npy file nor text"),
        ("a.txt", lambda path: None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as error:
        slice_rows(SliceSettings(ids=str(tmp_path / name)), IDS, np.zeros(6, int), IDS)
    assert name in str(error.value)


def test_ids_read_as_they_are(tmp_path):
    np.save(tmp_path / "a.npy", IDS)
    assert read_ids(tmp_path / "a.npy").tolist() == IDS.tolist()


class TestRowsInThePool:
    def test_of_all_and_of_some(self):
        assert rows_in_pool(None, IDS, "t") is None
        assert rows_in_pool(IDS.copy(), IDS, "t") is None
        assert rows_in_pool(IDS[[1, 3, 4]], IDS, "t").tolist() == [1, 3, 4]

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            (IDS[::-1], r"t: 6 ids differ from the pool's; the first: row 0: \d+ for the pool's \d+, row 1"),
            (IDS[[3, 1]], r"t: its examples are not in the pool's order"),
            (IDS[[1, 1]], r"or come more than once"),
            (np.array([5, 6], np.uint64), r"t: 1 of 2 ids are not in the pool; the first: 6"),
            (np.append(IDS, np.uint64(6)), r"1 of 7 ids are not in the pool"),
        ],
    )
    def test_of_others(self, ids, message):
        with pytest.raises(InputError, match=message):
            rows_in_pool(ids, IDS, "t")
