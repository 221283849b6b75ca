"""How clusters and sources share a budget, and which rows of a cluster are taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax import KMeans
from s2l_jax.config import default, resolved_run, run
from s2l_jax.errors import InputError
from s2l_jax.selection import SelectionInputs, select
from s2l_jax.selection.balanced import balanced_order, share_weights, shares
from s2l_jax.selection.ranking import round_robin


def sainte_lague(sizes, weights, budget):
    """One seat after the other to the largest quotient of weight and odd number, of groups with rows left."""
    taken = np.zeros(len(sizes), int)
    for _ in range(budget):
        quotients = np.where(taken < sizes, weights / (2 * taken + 1), -1.0)
        best = np.flatnonzero(np.isclose(quotients, quotients.max(), rtol=1e-12))
        # Of equal quotients the largest group, then the highest number.
        taken[max(best, key=lambda group: (sizes[group], group))] += 1
    return taken.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.data())
def test_turns_by_weight_are_those_of_sainte_lague(sizes, data):
    weights = np.array([data.draw(st.sampled_from([1.0, 2.0, 3.0, 7.5])) for _ in sizes])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    order = round_robin(groups, np.arange(len(groups)), weights)
    for budget in range(len(groups) + 1):
        counts = np.bincount(groups[order[:budget]], minlength=len(sizes)).tolist()
        assert counts == sainte_lague(np.array(sizes), weights, budget)


def test_shares_by_rule():
    sizes = np.array([100, 400, 900])
    assert shares(sizes, 140, share_weights(sizes, "proportional")).tolist() == [10, 40, 90]
    assert shares(sizes, 60, share_weights(sizes, "square_root")).tolist() == [10, 20, 30]
    assert shares(sizes, 330).tolist() == [100, 115, 115]
    labels = np.repeat([0, 1, 2], sizes)
    for rule, budget, expected in (("proportional", 140, [10, 40, 90]), ("square_root", 60, [10, 20, 30])):
        taken = balanced_order(labels, np.arange(1400), rule)[:budget]
        assert np.bincount(labels[taken]).tolist() == expected


@pytest.fixture(scope="module")
def known():
    rng = np.random.default_rng(0)
    return SelectionInputs(
        trajectories=rng.gamma(2, 1, (600, 5)).astype(np.float32),
        sources=np.repeat(["a", "b", "c"], [300, 200, 100]),
    )


def test_clusters_in_proportion(known):
    chosen = select(known, 120, num_clusters=6, stratify_by="none", cluster_shares="proportional")
    expected = chosen.cluster_sizes * 120 / 600
    assert np.abs(chosen.picked_per_cluster - expected).max() < 1


def test_sources_in_proportion_and_by_difficulty(known):
    options = {"num_clusters": 4, "cluster_small_sources": True}
    chosen = select(known, 60, source_shares="proportional", **options)
    assert [taken for _, taken in chosen.source_counts.values()] == [30, 20, 10]
    control = select(known, 60, method="random", stratify_by="source", source_shares="proportional")
    assert control.source_counts == chosen.source_counts
    losses = known.trajectories.copy()
    losses[:, -1] = np.repeat([1.0, 2.0, 3.0], [300, 200, 100])
    chosen = select(known.replace(trajectories=losses), 60, source_shares="difficulty", **options)
    assert [taken for _, taken in chosen.source_counts.values()] == [10, 20, 30]


@pytest.mark.parametrize("stratify_by", ["source", "none"])
@pytest.mark.parametrize("pick", ["nearest", "stable"])
def test_rows_of_a_cluster_are_taken_in_order(known, pick, stratify_by):
    chosen = select(known, 90, num_clusters=4, stratify_by=stratify_by, min_cluster_size=0, pick=pick)
    at_random = select(known, 90, num_clusters=4, stratify_by=stratify_by, min_cluster_size=0)
    assert np.array_equal(chosen.labels, at_random.labels)
    assert np.array_equal(chosen.picked_per_cluster, at_random.picked_per_cluster)
    losses = known.trajectories.astype(np.float64)
    if pick == "nearest":
        far = ((losses - chosen.centroids[chosen.labels]) ** 2).sum(1)
    else:
        far = np.abs(np.diff(losses, axis=1)).mean(1)
    taken = np.zeros(600, bool)
    taken[chosen.indices] = True
    for cluster in range(len(chosen.centroids)):
        own = chosen.labels == cluster
        if (own & taken).any() and (own & ~taken).any():
            assert far[own & taken].max() <= far[own & ~taken].min()
    smaller = select(known, 30, num_clusters=4, stratify_by=stratify_by, min_cluster_size=0, pick=pick)
    if stratify_by == "none":
        assert set(smaller.indices) < set(chosen.indices)


@pytest.mark.parametrize("by", [{"pick": "stable"}, {"source_shares": "difficulty"}])
@pytest.mark.parametrize(
    ("options", "columns"), [({"num_checkpoints": 3}, slice(3)), ({"every": 2}, slice(1, None, 2))]
)
def test_what_goes_by_losses_goes_by_the_columns_that_are_used(known, options, columns, by):
    kept = known.replace(trajectories=known.trajectories[:, columns])
    chosen = select(known, 90, num_clusters=4, **options, **by)
    assert chosen.indices.tolist() == select(kept, 90, num_clusters=4, **by).indices.tolist()


@pytest.mark.parametrize("options", [{"pick": "stable"}, {"source_shares": "difficulty"}])
def test_what_goes_by_losses_needs_them(known, options):
    states = SelectionInputs(hidden_states=known.trajectories, sources=known.sources)
    with pytest.raises(InputError, match="needs losses"):
        select(states, 60, num_clusters=4, features="hidden_states", **options)


def test_options_of_kmeans_are_the_configs_unless_a_run_has_its_own(known):
    config = default()
    config.clustering.update(restarts=3, init="random", max_iterations=7, tolerance=0.5)
    config.selection.runs.s2l = run(method="s2l", restarts=5)
    entry = resolved_run(config, "s2l")
    assert {name: entry[name] for name in ("init", "restarts", "max_iterations", "tolerance")} == {
        "init": "random", "restarts": 5, "max_iterations": 7, "tolerance": 0.5,
    }  # fmt: skip
    for options in ({}, {"init": "random", "max_iterations": 2}, {"restarts": 4, "tolerance": 0.1}):
        chosen = select(known, 60, num_clusters=6, stratify_by="none", **options)
        given = {
            "max_iter" if n == "max_iterations" else "tol" if n == "tolerance" else n: v
            for n, v in options.items()
        }
        assert np.array_equal(chosen.labels, KMeans(6, seed=0, **given).fit(known.trajectories).labels_)


def test_rows_whose_loss_does_not_fall_are_left_out(known, tmp_path):
    import pyarrow.parquet as pq

    rises = known.trajectories[:, -1] >= known.trajectories[:, 0]
    for method in ("s2l", "random", "least_confidence"):
        chosen = select(known, 100, method=method, num_clusters=4, drop_rising=True)
        assert not rises[chosen.indices].any()
        assert chosen.notes["num_left_out"] == rises.sum()
    same = select(known.rows(np.flatnonzero(~rises)), 100, method="least_confidence")
    assert np.array_equal(chosen.indices, np.flatnonzero(~rises)[same.indices])
    chosen.save(tmp_path)
    table = pq.read_table(tmp_path / "clusters.parquet").to_pydict()
    said = np.array(["does not fall" in reason for reason in table["reason"]])
    assert np.array_equal(said, rises)


def test_a_filter_that_leaves_too_few(known):
    with pytest.raises(
        InputError, match=r"drop_unlearnt=0.2 and drop_rising=True leaves \d+ of 600 .*budget of 550"
    ):
        select(known, 550, method="random", drop_unlearnt=0.2, drop_rising=True)
    rising = SelectionInputs(trajectories=known.trajectories.cumsum(1))
    with pytest.raises(InputError, match="drop_rising=True leaves none of 600"):
        select(rising, 10, method="random", drop_rising=True)
    with pytest.raises(InputError, match="needs losses at two checkpoints"):
        select(known.trajectories[:, :1], 10, method="random", drop_rising=True)


def test_sources_that_weigh_nothing_take_turns():
    groups = np.repeat([0, 1, 2], 30)
    order = round_robin(groups, np.arange(90), np.zeros(3))
    assert np.bincount(groups[order[:30]]).tolist() == [10, 10, 10]
    order = round_robin(groups, np.arange(90), np.array([0.0, 1.0, 1.0]))
    assert np.bincount(groups[order[:30]], minlength=3).tolist() == [0, 15, 15]
