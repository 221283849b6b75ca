"""The pipeline on a slice of the pool: what is tracked, what is selected from it, and how it is told."""

import json

import numpy as np
import pytest

from s2l_jax.config import run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import Selection, priorities, select
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.slices import stratified_rows
from s2l_jax.trajectories.store import TrajectoryStore
from tests.support.pipeline_kills import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

SLICE, POOL = 100, 240


@pytest.fixture(scope="module")
def config_of(tiny_checkpoint):
    def make(**trajectories):
        config = small_config(str(tiny_checkpoint))
        config.mesh.data = -1
        config.evaluation.path = ""
        config.trajectories.update(trajectories)
        del config.selection.runs["s2l"]
        del config.selection.runs["random"]
        for name, budget in (("s2l", 60), ("s2l_all", 150)):
            config.selection.runs[name] = run(method="s2l", budget=budget, train_target=False)
        config.selection.runs.random = run(method="random", budget=150, train_target=False)
        return config

    return make


@pytest.fixture(scope="module")
def whole(config_of, tmp_path_factory):
    """A workdir whose sweeps are over the whole pool."""
    workdir = tmp_path_factory.mktemp("whole")
    run_pipeline(config_of(), workdir)
    return workdir


@pytest.fixture(scope="module")
def sliced(config_of, tmp_path_factory):
    """A workdir of a slice, its results, and what the terminal showed."""
    workdir, said = tmp_path_factory.mktemp("sliced"), []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pipeline.known", "trajectories.writer", "pipeline.stages.selection"):
            patch.setattr(f"s2l_jax.{module}.say", said.append)
        results = run_pipeline(config_of(slice_count=SLICE), workdir)
    return workdir, results, said


@pytest.fixture(scope="module")
def pool(whole):
    """Ids and sources of the pool."""
    chosen = Selection.load(whole / "selection" / "s2l")
    return chosen.ids, chosen.sources


@pytest.fixture(scope="module")
def rows(pool):
    """The slice, drawn here."""
    ids, sources = pool
    names = list(dict.fromkeys(sources.tolist()))
    codes = np.array([names.index(source) for source in sources])
    return stratified_rows(codes, priorities(ids, 0), SLICE)


def test_the_store_holds_the_slice(sliced, whole, pool, rows):
    ours, full = (load_trajectories(folder / "trajectories.zarr") for folder in (sliced[0], whole))
    assert ours.losses.shape == (SLICE, 3)
    assert np.array_equal(ours.ids, pool[0][rows])
    assert ours.steps.tolist() == full.steps.tolist() == [3, 6, 9]
    np.testing.assert_allclose(ours.losses, full.losses[rows], atol=1e-4)
    shares = np.bincount(np.unique(pool[1][rows], return_inverse=True)[1])
    assert np.allclose(shares, np.bincount(np.unique(pool[1], return_inverse=True)[1]) * SLICE / POOL, atol=1)


def test_selection_is_that_of_the_rows_by_hand(sliced, pool, rows):
    ids, sources = pool
    losses = load_trajectories(sliced[0] / "trajectories.zarr").losses
    by_hand = select(losses, 60, num_clusters=3, sources=sources[rows].tolist())
    ours = Selection.load(sliced[0] / "selection" / "s2l")
    # Ids decide which of a cluster's rows are taken; by hand they were row numbers.
    assert np.array_equal(ours.picked_per_cluster, by_hand.picked_per_cluster)
    assert np.array_equal(ours.labels[rows], by_hand.labels)
    assert (np.delete(ours.labels, rows) == -1).all()
    assert ours.num_candidates == SLICE
    for cluster, count in enumerate(by_hand.picked_per_cluster):
        own = rows[by_hand.labels == cluster]
        want = own[np.argsort(priorities(ids[own], 0))[:count]]
        assert set(ours.indices[ours.labels[ours.indices] == cluster]) == set(want)
    assert ours.indices.dtype == np.int64
    assert ours.weights.sum() == pytest.approx(by_hand.cluster_sizes[by_hand.picked_per_cluster > 0].sum())
    assert sum(size for size, _ in ours.source_counts.values()) == POOL


def test_the_subset_holds_the_rows_that_were_chosen(sliced, whole):
    chosen = Selection.load(sliced[0] / "selection" / "s2l").indices
    every = Selection.load(whole / "selection" / "random")
    lines = (sliced[0] / "selection" / "s2l" / "subset.jsonl").read_text().splitlines()
    assert len(lines) == len(chosen) == 60
    theirs = (whole / "selection" / "random" / "subset.jsonl").read_text().splitlines()
    both = set(chosen.tolist()) & set(every.indices.tolist())
    assert both
    for row in both:
        assert lines[chosen.tolist().index(row)] == theirs[every.indices.tolist().index(row)]


def test_methods_without_trajectories_choose_from_the_whole_pool(sliced, whole):
    ours, full = (
        (folder / "selection" / "random" / "indices.npy").read_bytes() for folder in (sliced[0], whole)
    )
    assert ours == full
    assert "slice" not in sliced[1]["selections"]["random"]


def test_it_says_so(sliced):
    workdir, results, said = sliced
    assert results["trajectories"]["num_examples"] == SLICE
    assert results["trajectories"]["slice_of"] == POOL
    for name, size in (("s2l", 60), ("s2l_all", SLICE)):
        assert results["selections"][name]["slice"] == {"size": SLICE, "pool": POOL}
        assert results["selections"][name]["size"] == results["selections"][name]["budget"] == size
        summary = json.loads((workdir / "selection" / name / "summary.json").read_text())
        assert (summary["num_examples"], summary["num_candidates"]) == (POOL, SLICE)
    assert "tracking a slice of 100 of 240 pool rows" in said
    (line,) = (text for text in said if text.startswith("selection s2l:"))
    assert "60 of 100 examples, a slice of the pool's 240" in line
    (line,) = (text for text in said if text.startswith("selection s2l_all:"))
    assert "100 of 100 examples" in line
    assert "all of it, for the budget of 150 is above it" in line
    assert "a slice of the pool&#39;s 240" in (workdir / "report" / "index.html").read_text()


def test_a_run_that_stopped_goes_on_to_the_same_bytes(sliced, config_of, tmp_path, monkeypatch):
    real = TrajectoryStore.append

    def stopping(store, step, column):
        if step == 6:
            raise KeyboardInterrupt
        real(store, step, column)

    with monkeypatch.context() as patch:
        patch.setattr(TrajectoryStore, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(config_of(slice_count=SLICE), tmp_path)
    assert TrajectoryStore(tmp_path / "trajectories.zarr").steps().tolist() == [3]
    results = run_pipeline(config_of(slice_count=SLICE), tmp_path)
    assert results["trajectories"] == sliced[1]["trajectories"]
    assert results["selections"] == sliced[1]["selections"]
    ours, theirs = (load_trajectories(f / "trajectories.zarr").losses for f in (tmp_path, sliced[0]))
    assert ours.tobytes() == theirs.tobytes()


def test_another_slice_is_refused_and_the_same_one_is_not(sliced, config_of, pool, rows, tmp_path):
    workdir, results, _ = sliced
    with pytest.raises(InputError, match=r"slice\.rows: 100 before, 99 now"):
        run_pipeline(config_of(slice_count=99), workdir)
    with pytest.raises(InputError, match=r"slice\.rows: 100 before, absent now"):
        run_pipeline(config_of(), workdir)
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).permutation(pool[0][rows]))
    again = run_pipeline(config_of(slice_ids=str(tmp_path / "ids.npy")), workdir)
    assert again["selections"] == results["selections"]


def test_an_earlier_slice_can_be_selected_from(sliced, config_of, tmp_path):
    store = str(sliced[0] / "trajectories.zarr")
    results = run_pipeline(config_of(path=store), tmp_path / "new", stages=["selection"])
    # The proxy's cost is charged where it was trained.
    assert sliced[1]["selections"]["s2l"]["used"] == ["proxy"]
    theirs = {name: each | {"used": None} for name, each in sliced[1]["selections"].items()}
    assert {name: each | {"used": None} for name, each in results["selections"].items()} == theirs
    config = config_of(path=store)
    config.pool.limit = 90
    with pytest.raises(InputError, match="holds trajectories of 100 examples, the pool has 90 rows"):
        run_pipeline(config, tmp_path / "other", stages=["selection"])
    config.pool.limit = 200
    with pytest.raises(InputError, match=r"\d+ of 100 ids are not in the pool"):
        run_pipeline(config, tmp_path / "third", stages=["selection"])


def test_a_cadence_that_does_not_fit_is_found_before_any_work(config_of, tmp_path):
    for cadence, message in (
        ({"cadence": "list", "steps": (3, 10)}, "has 9 steps, so there is no sweep after 10"),
        ({"cadence": "log", "num_checkpoints": 10}, "num_checkpoints=10 is more than the 9 steps"),
    ):
        with pytest.raises(InputError, match=message):
            run_pipeline(config_of(**cadence), tmp_path)
    assert not (tmp_path / "pool").exists()


def test_an_uneven_cadence(config_of, tmp_path):
    config = config_of(cadence="list", steps=(9, 1, 4), step_zero=True, slice_fraction=0.1)
    results = run_pipeline(config, tmp_path)
    assert results["trajectories"]["steps"] == [0, 1, 4, 9]
    assert results["trajectories"]["num_examples"] == 24
    with pytest.raises(InputError, match=r"steps: \[9, 1, 4\] before, \[9, 4\] now"):
        run_pipeline(config_of(cadence="list", steps=(9, 4), step_zero=True, slice_fraction=0.1), tmp_path)
