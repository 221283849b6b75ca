"""Streaming k-means: its records, replay, and few-valued first columns."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from s2l_jax.clustering import KMeans, Refresh, StreamingKMeans, adjusted_rand_index
from s2l_jax.clustering import rows as rows_module
from s2l_jax.clustering.rows import prepare_rows
from s2l_jax.errors import InputError


def columns_that_settle(num_rows=1200, columns=6, seed=0):
    """Trajectories of five kinds which only differ once training has begun."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(5, size=num_rows)
    curves = 3 + kind[:, None] * np.minimum(np.arange(columns), 3)
    return (curves + 0.1 * rng.standard_normal((num_rows, columns))).astype(np.float32), kind


def test_records_say_when_the_clustering_settled():
    rows, kind = columns_that_settle()
    stream = StreamingKMeans(len(rows), 5, seed=1)
    labels = []
    for column in rows.T:
        stream.update(column)
        labels.append(stream.labels_)
    assert [record.columns for record in stream.records] == [1, 2, 3, 4, 5, 6]
    assert stream.records[0].adjusted_rand == 0.0
    for before, after, record in zip(labels, labels[1:], stream.records[1:], strict=False):
        assert record.adjusted_rand == adjusted_rand_index(before, after)
    assert stream.records[1].adjusted_rand < 0.5
    assert stream.records[-1].adjusted_rand == 1.0
    assert adjusted_rand_index(stream.labels_, kind) == 1.0
    assert stream.cluster_centers_.shape == (5, 6)
    distances = ((rows - stream.cluster_centers_[stream.labels_]) ** 2).sum()
    assert stream.records[-1].inertia == pytest.approx(distances, rel=1e-4)


def test_each_refresh_starts_where_the_last_one_stood():
    rows, _ = columns_that_settle()
    stream = StreamingKMeans(len(rows), 5)
    for column in rows[:, :3].T:
        stream.update(column)
    means = [rows[stream.labels_ == cluster, 3].mean() for cluster in range(5)]
    start = np.column_stack([stream.cluster_centers_, means])
    stream.update(rows[:, 3])
    assert np.array_equal(stream.labels_, KMeans(5, init=start).fit(rows[:, :4]).labels_)


def test_replay_gives_the_same_records():
    rows, _ = columns_that_settle()
    streams = [StreamingKMeans(len(rows), 5, seed=2) for _ in range(2)]
    for column in rows.T:
        streams[0].update(column)
    for column in rows.T:
        streams[1].update(jax.numpy.asarray(column))
    assert streams[0].records == streams[1].records
    assert np.array_equal(streams[0].labels_, streams[1].labels_)


def test_columns_sharded_over_devices_with_padding():
    if len(jax.devices()) < 8:
        pytest.skip("needs XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    rows, _ = columns_that_settle()
    stream, single = StreamingKMeans(1197, 5), StreamingKMeans(1197, 5)
    for column in rows.T:
        record = stream.update(jax.device_put(column, sharding))
        expected = single.update(column[:1197])
    assert stream.labels_.shape == (1197,)
    assert adjusted_rand_index(stream.labels_, single.labels_) == 1.0
    assert record.inertia == pytest.approx(expected.inertia, rel=1e-4)


def test_fewer_distinct_rows_than_clusters_at_first():
    stream = StreamingKMeans(60, 6)
    rng = np.random.default_rng(0)
    for distinct in (1, 2, 6):
        stream.update(rng.permutation(60) % distinct)
    assert (np.bincount(stream.labels_, minlength=6) > 0).all()
    assert StreamingKMeans(1, 3).update([2.0]) == Refresh(1, 0.0, 0.0)


def test_bad_columns_are_named():
    stream = StreamingKMeans(4, 2)
    stream.update(np.arange(4.0))
    with pytest.raises(InputError, match=r"column 1 .* shape \(3,\), expected \(4,\)"):
        stream.update(np.arange(3.0))
    with pytest.raises(InputError, match=r"1 of 4 rows .* first is row 2"):
        stream.update([0.0, 1.0, np.nan, 2.0])
    assert len(stream.records) == 1
    with pytest.raises(InputError, match="num_clusters must be at least 1"):
        StreamingKMeans(4, 0)


def test_sources_are_clustered_on_their_own():
    """As selection by source does: what one of them holds changes nothing for another."""
    rows, _ = columns_that_settle()
    sources = np.arange(len(rows)) % 3 * 5
    together = StreamingKMeans(len(rows), 4, seed=3, sources=sources)
    apart = {number: StreamingKMeans(int((sources == number).sum()), 4, seed=3) for number in (0, 5, 10)}
    for column in rows[:, :4].T:
        record = together.update(column)
        for number, stream in apart.items():
            stream.update(column[sources == number])
        # Each source's own, as pairs of two sources are apart whatever the clusters.
        own = [stream.records[-1].adjusted_rand for stream in apart.values()]
        assert record.adjusted_rand == pytest.approx(np.average(own, weights=np.bincount(sources)[::5]))
    for place, (number, stream) in enumerate(apart.items()):
        assert np.array_equal(together.labels_[sources == number], 4 * place + stream.labels_)
    assert together.cluster_centers_.shape == (12, 4)
    assert record.inertia == pytest.approx(sum(stream.records[-1].inertia for stream in apart.values()))


def test_many_rows_of_the_host_are_spread_over_all_devices(monkeypatch):
    rows, _ = columns_that_settle()
    alone = StreamingKMeans(len(rows), 5)
    for column in rows.T:
        alone.update(column)
    monkeypatch.setattr(rows_module, "_ROWS_A_DEVICE", 1)
    assert prepare_rows(rows[:, :1]).shards == len(jax.devices()) == 8
    spread = StreamingKMeans(len(rows), 5)
    for column in rows.T:
        spread.update(column)
    assert np.array_equal(spread.labels_, alone.labels_)
