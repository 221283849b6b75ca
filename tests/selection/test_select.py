"""`select` as a library call: methods, both variants of S2L, files, and bad input."""

import itertools
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.clustering import KMeans, fit_sharing_programs
from s2l_jax.errors import InputError
from s2l_jax.features.feature import FEATURES
from s2l_jax.selection import (
    METHODS,
    Selection,
    SelectionInputs,
    jaccard,
    priorities,
    select,
)
from s2l_jax.selection.balanced import balanced_order, balanced_order_of_source
from s2l_jax.trajectories.load import load_trajectories


def pool(num_rows=600, seed=0):
    """Trajectories with some duplicates, and sources of very different size."""
    rng = np.random.default_rng(seed)
    start, rate = rng.gamma(2, 1, (num_rows, 1)), rng.uniform(0.05, 1, (num_rows, 1))
    rows = (start * np.exp(-rate * np.arange(5))).astype(np.float32)
    rows[::7] = rows[0]
    names = np.array(["big", "middle", "small", "one"])
    sources = names[np.minimum(rng.geometric(0.6, num_rows) - 1, 2)]
    sources[17] = "one"
    return rows, sources.tolist()


def slow_official(rows, sources, budget, num_clusters, seed):
    """The official selection, source by source; clusters and picks as in the library."""
    names, counts = np.unique(sources, return_counts=True)
    by_size = sorted(zip(counts.tolist(), names.tolist(), strict=True))
    priority, chosen = priorities(np.arange(len(rows)), seed), []
    for position, (count, name) in enumerate(by_size):
        share = budget // (len(by_size) - position)
        own = np.flatnonzero(np.array(sources) == name)
        if count > share:
            distinct = len(np.unique(rows[own], axis=0))
            kmeans = KMeans(min(num_clusters, distinct), seed=seed)
            own = own[
                balanced_order_of_source(
                    fit_sharing_programs(kmeans, rows[own], num_clusters).labels_, priority[own]
                )[:share]
            ]
        chosen += own.tolist()
        budget -= len(own)
    return sorted(chosen)


@pytest.mark.parametrize("budget", [3, 40, 200, 599, 600])
def test_by_source_equals_the_official_rule(budget):
    rows, sources = pool()
    result = select(rows, budget, num_clusters=8, sources=sources, seed=5)
    assert result.indices.tolist() == slow_official(rows, sources, budget, 8, 5)
    assert result.indices.dtype == np.int64
    assert len(result.cluster_sources) == len(result.centroids) == len(result.cluster_sizes)
    for cluster, source in enumerate(result.cluster_sources):
        members = np.flatnonzero(result.labels == cluster)
        assert len(members)
        assert {sources[row] for row in members} == {source}


def test_without_strata_is_one_clustering_and_algorithm_1():
    rows, sources = pool()
    result = select(rows, 90, num_clusters=8, sources=sources, seed=2, stratify_by="none")
    labels = KMeans(8, seed=2).fit_predict(rows)
    assert np.array_equal(result.labels, labels)
    expected = balanced_order(labels, priorities(np.arange(len(rows)), 2))[:90]
    assert np.array_equal(result.indices, np.sort(expected))
    assert result.cluster_sources is None
    assert result.centroids.shape == (8, 5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 70),
    st.sampled_from(["source", "none"]),
    st.sampled_from(["s2l", "random"]),
    st.integers(0, 1000),
)
def test_always_exactly_the_budget(num_rows, budget, stratify_by, method, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 4, (num_rows, 2)).astype(np.float32)  # many duplicates
    sources = rng.integers(0, 5, num_rows)
    result = select(
        rows,
        budget,
        method=method,
        num_clusters=4,
        sources=sources,
        seed=seed,
        stratify_by=stratify_by,
    )
    assert len(result.indices) == min(budget, num_rows)
    assert (np.diff(result.indices) > 0).all()
    assert len(result.labels) == num_rows
    if method == "s2l":
        own = result.labels[result.indices]
        expected = result.cluster_sizes[own] / result.picked_per_cluster[own]
        np.testing.assert_allclose(result.weights, expected, rtol=1e-6)
    else:
        assert (result.weights == 1).all()


def test_picks_follow_the_ids_and_not_the_row_order():
    rows, sources = pool()
    ids = np.random.default_rng(1).permutation(10_000)[: len(rows)].astype(np.uint64)
    inputs = SelectionInputs(trajectories=rows, ids=ids, sources=sources)
    turned = SelectionInputs(trajectories=rows[::-1], ids=ids[::-1], sources=sources[::-1])
    first, second = (select(each, 60, method="random") for each in (inputs, turned))
    assert set(first.ids[first.indices]) == set(second.ids[second.indices])
    other_seed = select(inputs, 60, method="random", seed=1)
    assert jaccard(first.indices, other_seed.indices) < 0.2


def test_random_over_sources_and_full():
    rows, sources = pool()
    inputs = SelectionInputs(sources=sources)
    even = select(inputs, 9, method="random", stratify_by="source")
    assert {name: picked for name, (_, picked) in even.source_counts.items()} == {
        "big": 3,
        "middle": 3,
        "one": 1,
        "small": 2,
    }
    assert select(inputs, 9, method="full").indices.tolist() == list(range(len(rows)))


def test_thinned_trajectories():
    rows, _ = pool()
    thinned, direct = (
        select(rows, 50, num_clusters=6, every=2),
        select(rows[:, [1, 3]], 50, num_clusters=6),
    )
    assert np.array_equal(thinned.indices, direct.indices)
    assert thinned.centroids.shape == (6, 2)


def test_larger_budgets_contain_smaller_ones():
    rows, sources = pool()
    budgets = [20, 60, 200, 400]
    for options in ({"stratify_by": "source"}, {"stratify_by": "none"}):
        chosen = [
            set(select(rows, budget, num_clusters=8, sources=sources, **options).indices)
            for budget in budgets
        ]
        assert all(small <= large for small, large in itertools.pairwise(chosen))


def test_fewer_distinct_trajectories_than_clusters_is_logged(caplog):
    rows = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    with caplog.at_level(logging.INFO, "s2l_jax"):
        result = select(rows, 6, num_clusters=10, sources=["only"] * 12)
    assert "source 'only' has 3 distinct trajectories: 3 clusters instead of 10" in caplog.text
    assert result.picked_per_cluster.tolist() == [2, 2, 2]


@pytest.mark.parametrize("method", ["s2l", "random"])
@pytest.mark.parametrize("kind", ["names", "numbers", "none"])
def test_save_and_load(tmp_path, method, kind):
    pq = pytest.importorskip("pyarrow.parquet")
    rows, names = pool()
    sources = {"names": names, "numbers": [len(name) for name in names], "none": None}[kind]
    ids = np.arange(len(rows), dtype=np.uint64) + np.uint64(2**63)
    inputs = SelectionInputs(trajectories=rows, ids=ids, sources=sources)
    saved = select(inputs, 50, method=method, num_clusters=6)
    saved.save(tmp_path / "s2l")
    loaded = Selection.load(tmp_path / "s2l")
    for name in ("indices", "labels", "centroids", "weights", "ids", "sources"):
        before, after = getattr(saved, name), getattr(loaded, name)
        assert np.array_equal(before, after), name
    for name in ("cluster_sources", "method", "budget", "seed", "options", "source_counts"):
        assert getattr(saved, name) == getattr(loaded, name), name
    table = pq.read_table(tmp_path / "s2l" / "clusters.parquet")
    assert np.flatnonzero(table["selected"].to_numpy()).tolist() == saved.indices.tolist()
    summary = json.loads((tmp_path / "s2l" / "summary.json").read_text())
    assert summary["size"] == 50
    assert summary["versions"]["numpy"] == np.__version__
    if method == "s2l":
        assert sum(cluster["selected"] for cluster in summary["clusters"]) == 50
        assert summary["options"]["num_clusters"] == 6
    if kind == "names":
        assert sum(source["selected"] for source in summary["sources"].values()) == 50


def test_same_bytes_for_the_same_seed(tmp_path):
    rows, sources = pool()
    for name in ("first", "second"):
        select(rows, 50, num_clusters=6, sources=sources).save(tmp_path / name)
    for file in sorted((tmp_path / "first").iterdir()):
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def test_a_folder_without_a_summary_is_not_a_selection(tmp_path):
    select(pool()[0], 5, method="random").save(tmp_path)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(InputError, match="no complete selection"):
        Selection.load(tmp_path)


def test_jaccard():
    assert jaccard([1, 2, 3], [2, 3, 4]) == 0.5
    assert jaccard([1], [2]) == 0.0
    assert jaccard([], []) == 1.0


def test_every_method_declares_known_needs():
    for method in METHODS.values():
        assert set(method.features) == method.needs <= set(FEATURES)
    assert METHODS["s2l"].needs == {"trajectories"}
    assert METHODS["s2l"].options["stratify_by"] == "source"


def test_more_than_there_are_takes_all_and_warns(caplog):
    rows, _ = pool(num_rows=20)
    result = select(rows, 21, num_clusters=3)
    assert result.indices.tolist() == list(range(20))
    assert "budget 21 is above the 20 examples" in caplog.text


def bad_rows():
    rows = np.ones((10, 3), np.float32)
    rows[4, 1], rows[7, 0] = np.nan, np.inf
    return rows


@pytest.mark.parametrize(
    ("inputs", "arguments", "message"),
    [
        (np.ones((4, 2)), {"budget": 0}, "budget must be a whole number of at least 1, got 0"),
        (np.ones((4, 2)), {"budget": -3}, "got -3"),
        (np.ones((4, 2)), {"budget": 1.5}, "or a fraction above 0 and below 1, got 1.5"),
        (np.ones((4, 2)), {"budget": 0.0}, "got 0.0"),
        (np.ones((4, 2)), {"budget": float("nan")}, "got nan"),
        (np.ones((4, 2)), {"budget": True}, "must be a number, got True"),
        (np.ones((4, 2)), {"budget": "3"}, "must be a number, got '3'"),
        (np.ones((4, 2)), {"unit": "rows"}, "unit must be one of examples, tokens, got 'rows'"),
        (np.ones((4, 2)), {"budget": 0.5, "unit": "tokens"}, "at least 1, got 0.5"),
        (np.ones((4, 2)), {"unit": "tokens"}, "needs num_tokens, the tokens of each example"),
        (
            SelectionInputs(ids=np.array([7, 3, 7])),
            {"method": "random"},
            "come more than once; the first: 7",
        ),
        (np.ones((4, 2)), {"sources": ["a", "b"]}, "sources has 2 entries for 4 examples"),
        (bad_rows(), {}, "2 of 10 rows have NaN or infinite values, the first is row 4, column [0-9]"),
        (np.ones(4), {}, "trajectories must be a number array"),
        ("losses.npy", {}, r"'losses.npy' is a path: give load_trajectories\('losses.npy'\)"),
        (np.ones((0, 3)), {}, "no examples"),
        (SelectionInputs(), {"method": "random"}, "SelectionInputs is empty"),
        (SelectionInputs(sources=["a"]), {}, "needs trajectories.*run the trajectories stage"),
        (
            SelectionInputs(ids=np.arange(3)),
            {"method": "random", "stratify_by": "source"},
            "needs sources",
        ),
        (SelectionInputs(ids=np.array([0.5])), {"method": "random"}, "ids must be whole numbers"),
        (SelectionInputs(ids=np.array([3, -1])), {"method": "random"}, "-1 at row 1"),
        (SelectionInputs(sources=["a", None]), {"method": "random"}, "all of one kind.*row 1 has None"),
        (np.ones((4, 2)), {"method": "s2"}, "unknown selection method: 's2'; did you mean 's2l'"),
        (np.ones((4, 2)), {"stratify": "none"}, "did you mean 'stratify_by'"),
        (np.ones((4, 2)), {"stratify_by": "topic"}, "got 'topic'"),
        (np.ones((4, 2)), {"every": 3}, "use at most 2"),
        (np.ones((4, 2)), {"num_clusters": 0}, "at least 1"),
        (np.ones((4, 2)), {"num_clusters": 2.0}, "s2l: num_clusters must be a whole number, got 2.0"),
        (np.ones((4, 2)), {"distance": 1}, "distance must be text, got 1"),
        (np.ones((4, 2)), {"standardise": 1}, "standardise must be True or False, got 1"),
        (np.ones((4, 2)), {"method": "forgetting", "margin": "0"}, "margin must be a number, got .0."),
        (np.ones((4, 2)), {"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
        (np.ones((4, 2)), {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        (np.ones((4, 2)), {"num_checkpoints": 3}, "num_checkpoints=3, but trajectories have 2 columns"),
        (np.ones((4, 2)), {"num_checkpoints": 1, "every": 2}, "leaves none of the 1 trajectory columns"),
        (
            np.ones((4, 2)),
            {"distance": "manhattan"},
            "cosine, correlation, got 'manhattan'",
        ),
        (np.ones((4, 1)), {"method": "high_learnability"}, "at least 2 columns, and there are 1"),
        (np.ones((4, 2)), {"method": "forgetting", "margin": -1.0}, "margin must be at least 0, got -1.0"),
        (
            np.ones((4, 2)),
            {"method": "cartography", "region": "odd"},
            "easy, hard, got 'odd'",
        ),
        (np.ones((4, 2)), {"method": "early_loss", "early": 3}, "at least 3 columns"),
        (np.ones((4, 2)), {"colour": 1}, "unknown option of method 's2l': 'colour'. There are: num_clusters"),
        (np.ones((4, 2)), {"method": "longest"}, "needs response_tokens.*run the pool stage"),
    ],
)
def test_bad_input_is_named(inputs, arguments, message):
    with pytest.raises(InputError, match=message):
        select(inputs, **({"budget": 2} | arguments))


def test_s2l_by_correlation_clusters_shapes():
    """Rising and falling losses at many levels: two clusters, and as many of each in the subset."""
    rng = np.random.default_rng(0)
    rising = rng.permutation(np.repeat([True, False], [30, 170]))
    curves = np.where(rising[:, None], np.linspace(0, 1, 8), np.linspace(1, 0, 8))
    losses = (curves * rng.uniform(1, 5, (200, 1)) + rng.uniform(0, 30, (200, 1))).astype(np.float32)
    options = {"num_clusters": 2, "stratify_by": "none"}
    chosen = select(losses, 40, distance="correlation", **options)
    assert rising[chosen.indices].sum() == 20
    assert rising[select(losses, 40, **options).indices].sum() != 20


def test_loaded_trajectories_are_selected_from_with_their_ids(tmp_path):
    losses, ids = np.random.default_rng(0).random((50, 4), np.float32), np.arange(50, dtype=np.uint64) * 7 + 3
    np.savez(tmp_path / "t.npz", losses=losses, ids=ids, steps=[10, 20, 30, 40])
    chosen = select(load_trajectories(tmp_path / "t.npz"), 9, num_clusters=3)
    stated = select(SelectionInputs(trajectories=losses, ids=ids), 9, num_clusters=3)
    np.testing.assert_array_equal(chosen.indices, stated.indices)
    np.testing.assert_array_equal(chosen.ids, ids)
    assert repr(chosen) == "<Selection by s2l: 9 of 50 rows, 3 clusters>"


@pytest.mark.parametrize(("stratify_by", "warned"), [("source", True), ("none", False)])
def test_a_split_over_sources_that_nobody_gave_is_warned(caplog, stratify_by, warned):
    losses = np.random.default_rng(0).random((20, 3), np.float32)
    select(losses, budget=5, num_clusters=2, stratify_by=stratify_by)
    assert ("no sources are known" in caplog.text) == warned
