"""Distances of k-means: rows are rescaled, and then clustered as any others."""

import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.clustering import DISTANCES, KMeans, adjusted_rand_index, rescaled
from s2l_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")


def shapes_and_levels(size=300):
    """Rows of three shapes, each at many levels and scales."""
    rng = np.random.default_rng(0)
    shape = rng.integers(0, 3, size)
    curves = np.stack([np.linspace(1, 0, 12), np.linspace(0, 1, 12), np.sin(np.linspace(0, 6, 12))])
    rows = curves[shape] * rng.uniform(0.1, 9, (size, 1)) + rng.uniform(0, 20, (size, 1))
    return (rows + 0.001 * rng.normal(size=rows.shape)).astype(np.float32), shape


def test_correlation_sees_the_shape_and_not_the_level():
    rows, shape = shapes_and_levels()
    assert adjusted_rand_index(KMeans(3, distance="correlation").fit(rows).labels_, shape) == 1.0
    assert adjusted_rand_index(KMeans(3).fit(rows).labels_, shape) < 0.5


@pytest.mark.parametrize("distance", ["cosine", "correlation"])
def test_a_distance_is_the_squared_euclidean_one_of_rescaled_rows(distance):
    rng = np.random.default_rng(0)
    rows = rng.normal(2, 1, (40, 7)).astype(np.float32)
    units = np.asarray(rescaled(rows, distance), np.float64)
    centred = rows - rows.mean(1, keepdims=True) if distance == "correlation" else rows
    cosines = (centred @ centred.T) / np.outer(*[np.linalg.norm(centred, axis=1)] * 2)
    squared = ((units[:, None] - units[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared, 2 * (1 - cosines), atol=1e-5)
    fitted = KMeans(4, distance=distance).fit(rows)
    for k in range(4):
        np.testing.assert_allclose(fitted.cluster_centers_[k], units[fitted.labels_ == k].mean(0), atol=1e-5)
    assert np.array_equal(fitted.predict(1000 * rows), fitted.labels_), "scale does not matter"
    np.testing.assert_allclose(rescaled(jnp.asarray(rows), distance), units, atol=1e-6)


def test_rows_without_a_direction_are_in_one_place():
    rows = np.array([[0, 0, 0], [5, 5, 5], [1e30, 1e30, 1e30], [0.1, 0.1, 0.1], [1, 2, 3]], np.float32)
    assert rescaled(rows, "correlation")[:4].tolist() == [[0, 0, 0]] * 4
    assert rescaled(rows, "cosine")[0].tolist() == [0, 0, 0]
    assert np.allclose(np.linalg.norm(rescaled(rows, "cosine")[1:], axis=1), 1)


def test_an_unknown_distance():
    with pytest.raises(InputError, match="distance must be one of euclidean, cosine, correlation, got 'l1'"):
        KMeans(2, distance="l1")


def test_a_distance_is_added_by_its_name_and_rescaling(monkeypatch):
    monkeypatch.setitem(DISTANCES, "last", lambda rows: rows * np.float32([0, 0, 0, 1]))
    which = np.arange(60) % 3
    rows = np.random.default_rng(0).normal(0, 100, (60, 4)).astype(np.float32)
    rows[:, -1] = 10 * which
    assert adjusted_rand_index(KMeans(3, distance="last").fit(rows).labels_, which) == 1.0
