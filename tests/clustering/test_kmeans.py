"""k-means: the same as scikit-learn's, and what it does with awkward rows."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from s2l_jax.clustering import (
    KMeans,
    adjusted_rand_index,
    count_distinct,
    fit_sharing_programs,
    fitting,
    seeding,
    streaming,
)
from s2l_jax.clustering.lloyd import lloyd
from s2l_jax.clustering.rows import bucket
from s2l_jax.clustering.seeding import kmeans_plus_plus
from s2l_jax.errors import InputError


def decaying_curves(num_rows, columns=12, seed=0):
    """Loss-like rows: heavy-tailed starts, decays of every speed, noise."""
    rng = np.random.default_rng(seed)
    start, rate = rng.gamma(2, 1, (num_rows, 1)), rng.uniform(0.05, 1, (num_rows, 1))
    curves = start * np.exp(-rate * np.arange(columns)) + 0.1 * rng.gamma(1, 1, (num_rows, 1))
    return (curves + 0.05 * rng.standard_normal((num_rows, columns))).astype(np.float32)


def separated(num_rows, num_clusters, columns=4, seed=0):
    """Rows close to one of a few far-apart points, and which."""
    rng = np.random.default_rng(seed)
    centres = rng.permutation(num_clusters)[:, None] * 10.0 + rng.uniform(0, 1, (1, columns))
    which = rng.integers(num_clusters, size=num_rows)
    rows = centres[which] + 0.1 * rng.standard_normal((num_rows, columns))
    return rows.astype(np.float32), which


pytestmark = pytest.mark.usefixtures("quick_compilation")

ENGINES = ("products", "differences")


def run_on(monkeypatch, engine):
    """Distances from matrix products or from differences; small inputs otherwise take differences."""
    monkeypatch.setattr(fitting, "_EXACT_PAIRS", 2**40 if engine == "differences" else 0)


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    """Each way to run a fit."""
    run_on(monkeypatch, request.param)


@pytest.fixture
def matrix_products(monkeypatch):
    """Distances from matrix products, which otherwise only larger inputs take."""
    run_on(monkeypatch, "products")


def sharded(rows, devices=8):
    if len(jax.devices()) < devices:
        pytest.skip("needs XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))


@pytest.mark.parametrize("max_iter", [1, 20])
@pytest.mark.parametrize("engine", ENGINES)
def test_same_as_scikit_learn_from_the_same_centroids(monkeypatch, max_iter, engine):
    sklearn = pytest.importorskip("sklearn.cluster")
    run_on(monkeypatch, engine)
    rows = decaying_curves(3000)
    init = rows[np.random.default_rng(1).choice(len(rows), 20, replace=False)]
    ours = KMeans(20, init=init, max_iter=max_iter).fit(rows)
    # In float64: scikit-learn's float32 sums alone move some labels within 20 iterations.
    theirs = sklearn.KMeans(
        20, init=init.astype(float), n_init=1, max_iter=max_iter, tol=0, algorithm="lloyd"
    ).fit(rows.astype(float))
    assert np.array_equal(ours.labels_, theirs.labels_)
    assert math.isclose(ours.inertia_, theirs.inertia_, rel_tol=1e-5)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-5)


@pytest.mark.usefixtures("engine")
def test_same_seed_same_labels_and_seeds_differ():
    rows = decaying_curves(3000)
    first, again, other = (KMeans(20, seed=seed).fit(rows) for seed in (3, 3, 4))
    assert first.labels_.tobytes() == again.labels_.tobytes()
    assert first.cluster_centers_.tobytes() == again.cluster_centers_.tobytes()
    assert not np.array_equal(first.labels_, other.labels_)


def test_plus_plus_beats_random_rows_on_heavy_tails():
    rows = decaying_curves(3000)
    assert KMeans(20).fit(rows).inertia_ < KMeans(20, init="random").fit(rows).inertia_


@pytest.mark.usefixtures("engine")
def test_the_best_of_several_starts_is_kept():
    rows = decaying_curves(3000)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(6), jnp.arange(1, 5))
    starts = kmeans_plus_plus(keys, jnp.asarray(rows), jnp.ones(len(rows)), 20, max_clusters=20)
    alone = [KMeans(20, init=start).fit(rows) for start in np.asarray(starts)]
    best = min(alone, key=lambda fitted: fitted.inertia_)
    assert best is not alone[0]  # else this would show nothing
    together = KMeans(20, restarts=4, seed=6).fit(rows)
    assert math.isclose(together.inertia_, best.inertia_, rel_tol=1e-6)
    assert np.array_equal(together.labels_, best.labels_)
    assert together.n_iter_ == best.n_iter_


@pytest.mark.usefixtures("engine")
def test_groups_of_centroids_and_the_last_short_piece_are_labelled_too():
    rows = decaying_curves(2100, columns=3)
    init = rows[np.random.default_rng(0).choice(len(rows), 300, replace=False)]
    labels = KMeans(300, init=init, max_iter=1, chunk_rows=700).fit(rows).predict(init)
    exact = np.square(init[:, None] - KMeans(300, init=init, max_iter=1).fit(rows).cluster_centers_).sum(-1)
    assert np.array_equal(labels, exact.argmin(1))


@pytest.mark.usefixtures("matrix_products")
@pytest.mark.parametrize("chunk_rows", [100, 1024])
def test_any_chunk_size_gives_the_same_clustering(chunk_rows):
    rows = decaying_curves(3000)
    whole, cut = KMeans(20).fit(rows), KMeans(20, chunk_rows=chunk_rows).fit(rows)
    assert adjusted_rand_index(whole.labels_, cut.labels_) >= 0.999
    rows, which = separated(4096, 7)
    whole, cut = KMeans(7).fit(rows), KMeans(7, chunk_rows=chunk_rows).fit(rows)
    assert np.array_equal(whole.labels_, cut.labels_)
    assert adjusted_rand_index(whole.labels_, which) == 1.0


@pytest.mark.parametrize("engine", ENGINES)
def test_eight_devices_give_the_same_clustering(monkeypatch, engine):
    run_on(monkeypatch, engine)
    rows = decaying_curves(8192)
    one, eight = KMeans(40).fit(rows), KMeans(40, chunk_rows=300).fit(sharded(rows))
    assert adjusted_rand_index(one.labels_, eight.labels_) >= 0.999
    assert math.isclose(one.inertia_, eight.inertia_, rel_tol=1e-4)
    rows, which = separated(4096, 7)
    one, eight = KMeans(7).fit(rows), KMeans(7).fit(sharded(rows))
    assert np.array_equal(one.labels_, eight.labels_)
    assert adjusted_rand_index(eight.labels_, which) == 1.0


def collectives_of(compiled):
    """The kind and the shape of what devices send each other in a program."""
    found = re.findall(
        r"= \w+\[([\d,]*)\]\S* (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(",
        compiled.as_text(),
    )
    return [(kind, tuple(map(int, filter(None, shape.split(","))))) for shape, kind in found]


@pytest.mark.parametrize("exact", [False, True])
def test_an_iteration_meets_once_over_devices(exact):
    """One all-reduce of the sums and counts together; rows are never gathered."""
    rows = sharded(decaying_curves(4096))
    weights = jax.device_put(np.ones(4096, np.float32), NamedSharding(rows.sharding.mesh, rows.sharding.spec))
    compiled = lloyd.lower(
        rows, weights, jnp.ones((1, 5, 12)), jnp.zeros(12), 5, 20, 0.0, shards=8, chunk_rows=256, exact=exact
    ).compile()
    sizes = collectives_of(compiled)
    assert sizes.count(("all-reduce", (5, 12 + 1))) == 1
    assert max(math.prod(shape) for _, shape in sizes) == 5 * 13


def test_a_sample_is_drawn_and_a_column_added_without_gathering_the_rows():
    rows = sharded(np.zeros((2**14, 12), np.float32))
    weights, column = rows[:, 0], rows[:, 1]
    drawn = seeding._draw.lower(seeding.key_of(0), rows, weights, size=256).compile()
    assert max(math.prod(shape) for _, shape in collectives_of(drawn)) <= max(256 * 12, len(weights))
    added = streaming._set_column.lower(rows, column, 3).compile()
    assert not collectives_of(added)


def test_distinct_rows_of_sharded_ones_are_those_of_the_host():
    rows = np.random.default_rng(0).integers(0, 3, (4096, 2)).astype(np.float32)
    rows[4000:] = np.arange(96)[:, None]
    weights = (np.arange(4096) < 4000).astype(np.float32)
    spread = sharded(rows)
    along = NamedSharding(spread.sharding.mesh, spread.sharding.spec)
    for at_least in (4, 9, 20):
        found = count_distinct(spread, at_least=at_least, weights=jax.device_put(weights, along))
        assert found == count_distinct(rows[:4000], at_least=at_least) == min(at_least, 9)


def test_rows_of_weight_zero_count_for_nothing_on_a_mesh():
    rows, which = separated(4000, 5)
    padded = np.concatenate([rows, np.full((96, 4), 1000, np.float32)])
    weight = np.arange(4096) < 4000
    fitted = KMeans(5).fit(sharded(padded), sample_weight=weight)
    assert adjusted_rand_index(fitted.labels_[:4000], which) == 1.0
    assert abs(fitted.cluster_centers_).max() < 100


@pytest.mark.usefixtures("engine")
def test_weights_are_repetitions():
    rows = decaying_curves(300)
    times = np.random.default_rng(0).integers(0, 4, len(rows))
    init = rows[times > 0][:6]
    weighted = KMeans(6, init=init).fit(rows, sample_weight=times)
    repeated = KMeans(6, init=init).fit(np.repeat(rows, times, axis=0))
    assert np.array_equal(np.repeat(weighted.labels_, times), repeated.labels_)
    assert math.isclose(weighted.inertia_, repeated.inertia_, rel_tol=1e-5)


@pytest.mark.usefixtures("engine")
def test_predict_gives_the_fitted_labels_and_ties_go_to_the_lowest():
    rows = decaying_curves(3000)
    fitted = KMeans(20).fit(rows)
    assert np.array_equal(fitted.predict(rows), fitted.labels_)
    assert np.array_equal(KMeans(20).fit_predict(rows), fitted.labels_)
    between = KMeans(3, init=[[0.0], [4.0], [2.0]], max_iter=1).fit([[0.0], [4.0], [2.0]])
    assert between.predict([[1.0], [3.0], [-1.0]]).tolist() == [0, 1, 0]


@pytest.mark.usefixtures("engine")
def test_equal_first_centroids_are_pulled_apart():
    rows, which = separated(1000, 5)
    fitted = KMeans(5, init=np.repeat(rows[:1], 5, axis=0)).fit(rows)
    assert adjusted_rand_index(fitted.labels_, which) == 1.0


@pytest.mark.usefixtures("matrix_products")
def test_rows_closer_than_matrix_products_can_tell_fill_all_clusters():
    rows = np.concatenate([np.arange(40)[:, None] * 1e-6, np.full((300, 1), 8.0)])
    fitted = KMeans(41).fit(rows)
    assert np.bincount(fitted.labels_, minlength=41).tolist().count(1) == 40
    assert fitted.inertia_ == 0.0


@pytest.mark.usefixtures("engine")
def test_fits_of_fewer_clusters_share_the_program():
    rows = decaying_curves(500)
    assert np.array_equal(
        fit_sharing_programs(KMeans(9, init=rows[:9]), rows, 32).labels_,
        KMeans(9, init=rows[:9]).fit(rows).labels_,
    )
    fit_sharing_programs(KMeans(9), rows, 32)  # with drawn centroids, which are on the device
    before = lloyd._cache_size()
    for clusters in (7, 8):
        fit_sharing_programs(KMeans(clusters), rows, 32)
    assert lloyd._cache_size() == before


small_rows = st.integers(1, 3).flatmap(
    lambda columns: st.lists(st.tuples(*[st.integers(-2, 2).map(float)] * columns), min_size=1, max_size=12)
)


@pytest.mark.usefixtures("engine")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(small_rows, st.integers(1, 6), st.sampled_from(["k-means++", "random"]))
def test_no_cluster_is_empty_or_the_error_counts_distinct_rows(rows, num_clusters, init):
    distinct = len(set(rows))
    assert count_distinct(rows, at_least=100) == distinct
    kmeans = KMeans(num_clusters, init=init)
    if distinct < num_clusters:
        with pytest.raises(InputError, match=f"only {distinct} among {len(rows)}"):
            fit_sharing_programs(kmeans, rows, 6)
        return
    labels = fit_sharing_programs(kmeans, rows, 6).labels_
    assert (np.bincount(labels, minlength=num_clusters) > 0).all()
    assert len({(row, label) for row, label in zip(rows, labels, strict=True)}) == distinct
    if distinct == num_clusters:
        assert kmeans.inertia_ == pytest.approx(0, abs=1e-12)  # means of equal rows are rounded
    expected = ((np.array(rows) - kmeans.cluster_centers_[labels]) ** 2).sum()
    assert math.isclose(kmeans.inertia_, expected, rel_tol=1e-4, abs_tol=1e-6)


@pytest.mark.usefixtures("engine")
def test_constant_columns_change_nothing():
    rows, _ = separated(800, 6)
    wider = np.concatenate([rows, np.full((800, 2), 3.0, np.float32)], axis=1)
    assert np.array_equal(KMeans(6).fit(rows).labels_, KMeans(6).fit(wider).labels_)


@pytest.mark.usefixtures("engine")
def test_tolerance_stops_early():
    rows = decaying_curves(3000)
    assert KMeans(20, tol=1.0).fit(rows).n_iter_ < KMeans(20).fit(rows).n_iter_ <= 20
    few, _ = separated(500, 3)
    assert KMeans(3, max_iter=100).fit(few).n_iter_ < 5


@pytest.mark.parametrize(
    ("rows", "weight", "message"),
    [
        ([[1.0], [np.nan], [2.0], [np.inf]], None, "2 of 4 rows .* first is row 1"),
        ([1.0, 2.0, 3.0], None, r"got shape \(3,\)"),
        (np.zeros((0, 3)), None, r"got shape \(0, 3\)"),
        ([["a"], ["b"]], None, "needs rows of numbers"),
        ([[1e300], [2.0]], None, "1 of 2 rows"),
        ([[1e20], [-2e20]], None, "squared distances .* too large for float32"),
        ([[1.0], [2.0]], [1.0], "sample_weight has shape"),
        ([[1.0], [2.0]], [1.0, -1.0], "-1.0 at row 1"),
        ([[1.0], [2.0]], [0.0, 0.0], "0 for every row"),
    ],
)
@pytest.mark.usefixtures("engine")
def test_bad_rows_are_named(rows, weight, message):
    with pytest.raises(InputError, match=message):
        KMeans(1).fit(rows, sample_weight=weight)


def test_bad_settings_are_named():
    for wrong in ({"num_clusters": 0}, {"num_clusters": 2, "max_iter": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            KMeans(**wrong)
    for wrong in ({"num_clusters": 2.5}, {"num_clusters": 2, "max_iter": 2.5}, {"num_clusters": "3"}):
        with pytest.raises(InputError, match="must be a whole number"):
            KMeans(**wrong)
    with pytest.raises(InputError, match="tol must be a number of at least 0, got nan"):
        KMeans(2, tol=math.nan)
    with pytest.raises(TypeError):
        KMeans(1).fit([[0.0]], [1.0])  # scikit-learn ignores a second argument; weights are named
    with pytest.raises(InputError, match="2 restarts from the same given centroids"):
        KMeans(2, init=[[0.0], [1.0]], restarts=2)
    with pytest.raises(InputError, match="init must be"):
        KMeans(2, init="kmeans")
    with pytest.raises(InputError, match=r"shape \(3, 1\)"):
        KMeans(2, init=[[0.0], [1.0], [2.0]]).fit([[0.0], [1.0]])
    with pytest.raises(InputError, match="call fit first"):
        KMeans(2).predict([[0.0]])
    with pytest.raises(InputError, match="fitted on 1 columns"):
        KMeans(1).fit([[0.0]]).predict([[0.0, 1.0]])


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("distance", ["cosine", "correlation"])
def test_bad_rows_are_named_before_they_lose_their_direction(distance):
    rows = decaying_curves(60)
    rows[7, 2], rows[40, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 of 60 rows .* first is row 7"):
        KMeans(2, distance=distance).fit(rows)
    fitted = KMeans(2, distance=distance).fit(rows[:7])
    with pytest.raises(InputError, match=r"2 of 60 rows .* first is row 7"):
        fitted.predict(rows)


@pytest.mark.usefixtures("engine")
def test_numpy_integers_and_seeds_of_any_size():
    rows = decaying_curves(300)
    inertias = [KMeans(np.int64(20), seed=seed).fit(rows).inertia_ for seed in (0, 2**32, 2**64)]
    assert len(set(inertias)) == 3
    assert KMeans(20, seed=np.int64(0)).fit(rows).inertia_ == inertias[0]


@pytest.mark.usefixtures("engine")
def test_layout_and_type_of_the_rows_change_nothing():
    rows = decaying_curves(300)
    expected = KMeans(20).fit(rows)
    for same in (np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2], rows.astype(float), rows.tolist()):
        found = KMeans(20).fit(same)
        assert found.labels_.tobytes() == expected.labels_.tobytes()
        assert found.cluster_centers_.tobytes() == expected.cluster_centers_.tobytes()
        assert found.inertia_ == expected.inertia_


@pytest.mark.usefixtures("engine")
def test_few_rows_of_positive_weight_among_many():
    rows, which = separated(40_000, 3)
    weight = np.zeros(len(rows))
    weight[[np.flatnonzero(which == group)[-1] for group in range(3)]] = 1
    fitted = KMeans(3, max_iter=2).fit(rows, sample_weight=weight)
    assert adjusted_rand_index(fitted.labels_, which) == 1.0
    assert fitted.inertia_ < 1e-6


@pytest.mark.usefixtures("engine")
def test_the_same_where_jax_keeps_64_bits():
    rows = decaying_curves(300)
    expected = KMeans(20).fit(rows)
    with jax.enable_x64(True):
        found = KMeans(20).fit(rows)
        assert np.array_equal(found.predict(rows), expected.labels_)
    assert np.array_equal(found.labels_, expected.labels_)
    np.testing.assert_allclose(found.cluster_centers_, expected.cluster_centers_, atol=1e-6)


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_sharded_rows_fewer_than_the_clusters_compiled_for(init):
    rows, which = separated(64, 3)
    fitted = fit_sharing_programs(KMeans(3, init=init), sharded(rows), 100)
    assert adjusted_rand_index(fitted.labels_, which) == 1.0


def test_buckets_are_few_and_tight():
    sizes = np.arange(1, 200_000, 37)
    padded = np.array([bucket(int(size)) for size in sizes])
    assert (padded >= sizes).all()
    assert (padded[sizes > 16_384] <= 1.13 * sizes[sizes > 16_384]).all()
    assert len(np.unique(padded)) <= 40
    assert bucket(262_144) == 262_144
