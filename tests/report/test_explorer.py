"""What the explorer is given: a sample that has some of every cluster, places, and texts of bounded size."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from s2l_jax.report import explorer
from s2l_jax.report.explorer import explore, principal_components, sample_rows
from tests.support.results import make_findings, make_results, make_trajectories


@pytest.fixture
def found():
    results = make_results()
    return make_findings(results, *make_trajectories(results))


def test_all_rows_of_a_small_pool_with_their_clusters_and_texts(found):
    content = explore(found)
    labels, taken = found.labels["s2l-100-seed0"], found.taken["s2l-100-seed0"]
    assert content["total"] == len(content["row"]) == len(labels)
    assert [run["name"] for run in content["runs"]] == ["s2l-100-seed0", "random-50"]
    assert content["runs"][1]["clustering"] == "s2l-100-seed0"  # random has none of its own
    assert content["runs"][0]["picked"] == np.bincount(labels[taken]).tolist()
    assert content["runs"][0]["taken"].tolist() == np.flatnonzero(taken).tolist()
    cluster = content["clusterings"]["s2l-100-seed0"]["clusters"][2]
    assert cluster["size"] == (labels == 2).sum()
    np.testing.assert_allclose(cluster["mean"], found.trajectories[labels == 2].mean(0), atol=1e-3)
    assert content["texts"][7] == ["text asked 7", "text answered 7"]


def test_a_sample_has_some_taken_and_some_left_of_every_cluster():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(20_000) < 0.99, 0, rng.integers(1, 20, 20_000))  # one cluster is nearly all
    taken = rng.random(20_000) < 0.3
    chosen = sample_rows(labels, taken, 1000)
    assert len(chosen) == len(np.unique(chosen)) == 1000
    assert (np.diff(chosen) > 0).all()
    for k in range(20):
        for wanted in (True, False):
            there = ((labels == k) & (taken == wanted)).sum()
            shown = ((labels[chosen] == k) & (taken[chosen] == wanted)).sum()
            assert shown >= min(there, explorer.CLUSTER_EXAMPLES)
    assert np.array_equal(chosen, sample_rows(labels, taken, 1000))


def test_texts_of_a_large_pool_are_cut_to_a_bound(found, monkeypatch):
    monkeypatch.setattr(explorer, "TEXT_CHARACTERS", 10 * 2 * len(found.labels["s2l-100-seed0"]))
    texts = [part for text in explore(found)["texts"] for part in text]
    assert {len(text) for text in texts} == {10}
    assert all(text.endswith("…") for text in texts)


def test_places_are_the_principal_components():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 6)) * [5, 3, 0.1, 0.1, 0.1, 0.1]
    places, explained = principal_components(rows)
    assert explained > 0.99
    for axis in range(2):
        assert abs(np.corrcoef(places[:, axis], rows[:, axis])[0, 1]) > 0.99
    assert principal_components(np.ones((3, 1)))[0].tolist() == [[0, 0]] * 3


def test_without_clusters_or_losses_there_is_nothing_to_explore(found):
    assert "no trajectories" in explore(dataclasses.replace(found, trajectories=None))
    assert "clustered" in explore(dataclasses.replace(found, labels={}, taken={}))
    assert "clustered" in explore(dataclasses.replace(found, labels={}))  # subsets by other proxies alone


def test_umaps_places_are_a_second_map(found, monkeypatch):
    asked = {}

    class UMAP:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, rows):
            return np.stack([np.arange(len(rows)), -np.arange(len(rows))], axis=1)

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    maps = explore(found)["maps"]
    assert [name.split(",")[0] for name in maps] == ["PCA", "UMAP"]
    assert np.corrcoef(maps["UMAP"][:, 0], maps["UMAP"][:, 1])[0, 1] == pytest.approx(-1)
    assert asked["random_state"] == 0  # the same page each time
    monkeypatch.setitem(sys.modules, "umap", None)
    assert len(explore(found)["maps"]) == 1
