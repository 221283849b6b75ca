"""What is said of several numbers of clusters."""

import dataclasses

import numpy as np
import pytest

from s2l_jax.clustering import adjusted_rand_index, compare_cluster_counts, rescaled, silhouette
from s2l_jax.config import load, run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline


def groups(num_rows=600, num_clusters=6, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    which = np.arange(num_rows) % num_clusters
    centres = 3 * rng.standard_normal((num_clusters, 5))
    return (centres[which] + spread * rng.standard_normal((num_rows, 5))).astype(np.float32), which


def test_the_true_number_of_groups_stands_out():
    rows, _ = groups()
    found = {c.num_clusters: c for c in compare_cluster_counts(rows, np.array([3, 6, 12]), repeats=4)}
    assert found[6].silhouette > max(found[3].silhouette, found[12].silhouette)
    assert found[6].inertia < 0.2 * found[3].inertia
    assert found[12].inertia < found[6].inertia
    assert found[6].stability == 1.0
    assert found[12].stability < 1.0


def test_entries_are_what_fits_give():
    from s2l_jax.clustering import KMeans, fit_sharing_programs

    rows, _ = groups(spread=2.0)
    (found,) = compare_cluster_counts(rows, [5], repeats=3, seed=7, sample=200)
    fits = [fit_sharing_programs(KMeans(5, seed=7 + n), rows, 8) for n in range(3)]
    assert found.inertia == pytest.approx(min(fit.inertia_ for fit in fits), rel=1e-5)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([adjusted_rand_index(fits[a].labels_, fits[b].labels_) for a, b in pairs])
    assert found.stability == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("distance", ["euclidean", "correlation"])
def test_silhouette_is_scikit_learns(distance):
    metrics = pytest.importorskip("sklearn.metrics")
    rows, which = groups(num_rows=700, spread=1.5)
    which[which == 5] = 4
    which[0] = 5  # alone in its cluster
    expected = metrics.silhouette_score(np.asarray(rescaled(rows, distance), np.float64), which)
    assert silhouette(rows, which, distance=distance) == pytest.approx(expected, abs=1e-5)
    sampled = silhouette(rows, which, distance=distance, sample=500)
    assert sampled == pytest.approx(expected, abs=0.05)
    assert sampled != pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": []}, r"from 2 up, got \[\]"),
        ({"counts": [4, 4]}, r"different numbers from 2 up, got \[4, 4\]"),
        ({"counts": [4, 1]}, "count to compare must be at least 2, got 1"),
        ({"counts": [4], "repeats": 1}, "repeats of each cluster count must be at least 2, got 1"),
        ({"counts": [4, 700]}, "only 600 among 600"),
    ],
)
def test_what_cannot_be_compared_is_named(options, message):
    with pytest.raises(InputError, match=message):
        compare_cluster_counts(groups()[0], **options)


def test_labels_that_say_nothing():
    rows, which = groups()
    with pytest.raises(InputError, match=r"600 rows have labels of shape \(5,\)"):
        silhouette(rows, which[:5])
    with pytest.raises(InputError, match="in one cluster"):
        silhouette(rows, np.zeros(600))


def test_a_run_compares_what_its_config_lists(tmp_path):
    rows, _ = groups(num_rows=300)
    np.save(tmp_path / "losses.npy", rows)
    config = load("select_only")
    config.trajectories.path = str(tmp_path / "losses.npy")
    config.clustering.compare = (3, 6)
    config.clustering.num_clusters, config.selection.budget = 6, 30
    config.clustering.update(init="random", restarts=2, max_iterations=3, tolerance=0.01)
    fits = {"init": "random", "restarts": 2, "max_iter": 3, "tol": 0.01}
    results = run_pipeline(config, tmp_path / "run", stages=["selection", "report"])
    expected = [dataclasses.asdict(c) for c in compare_cluster_counts(rows, [3, 6], seed=config.seed, **fits)]
    assert results["cluster_counts"] == expected
    assert "Other numbers of clusters" in (tmp_path / "run" / "report" / "index.html").read_text()
    config.clustering.compare = (12, 6)
    again = run_pipeline(config, tmp_path / "run", stages=["selection"])["cluster_counts"]
    assert [found["num_clusters"] for found in again] == [3, 6, 12]
    config.clustering.restarts, config.clustering.compare = 1, (9,)  # other settings, another curve
    config.selection.runs = {"random": run(method="random", train_target=False)}
    other = run_pipeline(config, tmp_path / "run", stages=["selection"])["cluster_counts"]
    assert [found["num_clusters"] for found in other] == [9]
    config.clustering.compare = (12, 1)
    with pytest.raises(InputError, match=r"clustering\.compare=\(12, 1\)"):
        run_pipeline(config, tmp_path / "run", stages=["selection"])
