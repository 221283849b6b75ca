"""A proxy whose training ends once its clusters have settled."""

import json
import types

import numpy as np
import pytest

from s2l_jax.clustering.streaming import Refresh, StreamingKMeans
from s2l_jax.config import default, run
from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import SelectionInputs, select
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.settled import StopWhenSettled

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

STAGES = ("pool", "proxy")


@pytest.fixture
def config(tiny_checkpoint):
    config = default()
    config.pool.limit = 160
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 96
    config.proxy.checkpoint = str(tiny_checkpoint)
    config.proxy.train.update(steps=8, batch_size=8, learning_rate=1e-4, dtype="float32", checkpoint_every=2)
    config.trajectories.every = 1
    config.clustering.num_clusters = 3
    return config


@pytest.fixture
def stopping(config):
    config.trajectories.update(stop_when_stable=2, stable_above=0.01)
    return config


def test_the_columns_are_the_first_of_those_without_the_rule(config, tmp_path):
    run_pipeline(config, tmp_path / "whole", stages=STAGES)
    config.trajectories.update(stop_when_stable=2, stable_above=0.01)
    results = run_pipeline(config, tmp_path / "stopped", stages=STAGES)
    whole, stopped = (load_trajectories(tmp_path / n / "trajectories.zarr") for n in ("whole", "stopped"))
    # The first sweep has none to agree with: two in a row are the second and third.
    assert stopped.steps.tolist() == [1, 2, 3]
    assert whole.steps.tolist() == list(range(1, 9))
    assert np.asarray(stopped.losses).tobytes() == np.ascontiguousarray(whole.losses[:, :3]).tobytes()
    assert results["proxy"]["steps"] == 3
    assert results["proxy"]["planned_steps"] == 8
    assert results["proxy"]["examples_seen"] == 24


def test_what_is_judged_is_the_clustering_by_source_as_the_selection_makes_it(config, tmp_path):
    config.proxy.train.steps = 3
    results = run_pipeline(config, tmp_path, stages=STAGES)
    (folder,) = (path.parent for path in (tmp_path / "pool").glob("*/manifest.json"))
    sources = PreparedPool(folder).source_codes
    assert len(set(sources.tolist())) > 1
    expected = StreamingKMeans(160, 3, config.seed, sources=sources)
    for column in load_trajectories(tmp_path / "trajectories.zarr").losses.T:
        expected.update(column)
    assert results["trajectories"]["refreshes"] == [vars(record) for record in expected.records]
    config.selection.stratify_by = "none"
    with pytest.raises(InputError, match=r"selection\.stratify_by: 'source' before, 'none' now"):
        run_pipeline(config, tmp_path, stages=STAGES)


def test_sources_that_tell_rows_apart_are_no_categories(config, tmp_path):
    """Such as an address; a clustering of each would take minutes a sweep."""
    rows = [row | {"source": f"page {n}"} for n, row in enumerate(pool_rows(160))]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.pool.path = str(tmp_path / "pool.jsonl")
    config.proxy.train.steps = 2
    with pytest.warns(UserWarning, match=r"160 of 160 sources have a single tracked row: no categories"):
        results = run_pipeline(config, tmp_path / "run", stages=STAGES)
    expected = StreamingKMeans(160, 3, config.seed)
    for column in load_trajectories(tmp_path / "run" / "trajectories.zarr").losses.T:
        expected.update(column)
    assert results["trajectories"]["refreshes"] == [vars(record) for record in expected.records]


def test_a_run_stopped_at_its_end_goes_on_to_the_same(stopping, tmp_path, monkeypatch):
    unbroken = run_pipeline(stopping, tmp_path / "unbroken", stages=STAGES)
    save = Checkpoints.save

    def fail(checkpoints, step, state):
        if step == 3:
            raise KeyboardInterrupt  # the last column is stored, its checkpoint is not
        save(checkpoints, step, state)

    monkeypatch.setattr(Checkpoints, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(stopping, tmp_path / "killed", stages=STAGES)
    monkeypatch.setattr(Checkpoints, "save", save)
    again = run_pipeline(stopping, tmp_path / "killed", stages=STAGES)
    assert again["proxy"] == unbroken["proxy"]


def test_a_run_killed_after_its_last_checkpoint_does_not_train_on(stopping, tmp_path, monkeypatch):
    from s2l_jax.pipeline.stages import proxy

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(proxy, "training_flops", fail)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(stopping, tmp_path, stages=STAGES)
    assert run_pipeline(stopping, tmp_path, stages=STAGES)["proxy"]["steps"] == 3


@pytest.mark.parametrize(
    ("agreements", "step", "settled"),
    [
        ([0.0, 0.99, 0.99], 30, True),
        ([0.0, 0.99, 0.5, 0.99, 0.99], 40, False),
        ([0.0, 0.99, 0.5, 0.99, 0.99], 50, True),
        ([0.0, 0.99], 20, False),  # the first has none to agree with
        ([0.0, 0.99, 0.99], 35, False),  # no column of that step
    ],
)
def test_settled_is_so_many_columns_in_a_row(agreements, step, settled):
    records = [Refresh(n + 1, 1.0, a) for n, a in enumerate(agreements)]
    writer = types.SimpleNamespace(
        steps=[10 * (n + 1) for n in range(len(agreements))], clusters=types.SimpleNamespace(records=records)
    )
    assert StopWhenSettled(writer, 2, 0.95).should_stop(step) == settled


def test_training_losses_have_no_sweeps_to_stop_after(stopping, tmp_path):
    stopping.trajectories.source = "train"
    with pytest.raises(InputError, match="stop_when_stable is for sweeps"):
        run_pipeline(stopping, tmp_path, stages=STAGES)


def test_selection_clusters_the_columns_anew(stopping, tmp_path):
    """The running clustering says when to stop and nothing else: its labels are not selection's."""
    stopping.selection.runs.s2l = run(method="s2l", budget=40, stratify_by="none", train_target=False)
    run_pipeline(stopping, tmp_path, stages=["pool", "proxy", "selection"])
    columns = load_trajectories(tmp_path / "trajectories.zarr")
    assert columns.losses.shape == (160, 3)
    inputs = SelectionInputs(trajectories=columns.losses, ids=columns.ids)
    fresh = select(inputs, 40, num_clusters=3, stratify_by="none", seed=stopping.seed)
    assert np.array_equal(np.load(tmp_path / "selection" / "s2l" / "indices.npy"), fresh.indices)
