"""Free trajectories: every example's loss in the epoch that visited it, kept through interruptions."""

import json
import shutil
import types

import jax
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.config import run
from s2l_jax.data.batching import Batches
from s2l_jax.data.order import visit_order
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.errors import InputError
from s2l_jax.models.hf import load_config
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import Selection
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.training.hooks import FinishedStep
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import abstract_state, make_train_step
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.store import TrajectoryStore
from s2l_jax.trajectories.training_losses import TrainingLossRecorder, check_epochs
from tests.support.paths import GOLDEN
from tests.support.pipeline_kills import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]


def batch_of(step, size, subset, seed=3):
    positions = np.arange(step * size, (step + 1) * size)
    return types.SimpleNamespace(step=step, examples=subset[visit_order(positions, len(subset), seed)])


class Columns:
    """Stands for a writer."""

    def __init__(self):
        self.stored = []

    @property
    def steps(self):
        return [step for step, _ in self.stored]

    def add(self, step, column, how):
        self.stored.append((step, column))

    def show_again(self, step):
        assert step in self.steps


def loss_of(step, row):
    return np.float32(1000 * step + row)


def losses_of(batch):
    return np.array([loss_of(batch.step, row) for row in batch.examples], np.float32)


def expected(subset, tracked, size, num_steps, seed=3):
    """Columns by plain counting: the step at which each position of the endless order was visited."""
    columns = []
    for epoch in range(num_steps * size // len(subset)):
        positions = np.arange(epoch * len(subset), (epoch + 1) * len(subset))
        rows = subset[visit_order(positions, len(subset), seed)]
        step_of = dict(zip(rows.tolist(), (positions // size).tolist(), strict=True))
        column = [loss_of(step_of[row], row) if row in step_of else 0 for row in tracked.tolist()]
        columns.append((-(-(epoch + 1) * len(subset) // size), np.array(column, np.float32)))
    return columns


@settings(max_examples=60, deadline=None)
@given(data=st.data(), pool=st.integers(1, 40), seed=st.integers(0, 9))
def test_each_example_counts_in_its_own_epoch(tmp_path_factory, data, pool, seed):
    rng = np.random.default_rng(seed)
    subset = np.sort(rng.permutation(pool)[: data.draw(st.integers(1, pool))])
    tracked = np.sort(rng.permutation(pool)[: data.draw(st.integers(1, pool))])
    size = data.draw(st.integers(1, len(subset)))
    num_steps = data.draw(st.integers(1, 3 * len(subset) // size + 2))
    path = epath.Path(tmp_path_factory.mktemp("losses"))
    columns = Columns()

    def resumed():
        return TrainingLossRecorder(path, subset, tracked, size, columns)

    recorder, checkpoint, step = resumed(), 0, 0
    stops = data.draw(st.lists(st.integers(0, num_steps - 1), max_size=4))
    while step < num_steps:
        if step in stops:  # killed: on from the last checkpoint, or from the first step
            stops.remove(step)
            step = data.draw(st.sampled_from([checkpoint, 0]))
            recorder = resumed()
        batch = batch_of(step, size, subset)
        recorder.after_step(FinishedStep(batch, 0.0, 0.0, 0.0, losses_of(batch)))
        step += 1
        if data.draw(st.booleans()):
            recorder.before_checkpoint(step)
            checkpoint = max(checkpoint, step)
    want = expected(subset, tracked, size, num_steps)
    assert columns.steps == [s for s, _ in want]
    for (_, ours), (_, theirs) in zip(columns.stored, want, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


def test_a_step_of_more_than_an_epoch_is_refused():
    with pytest.raises(InputError, match=r"batch_size=9 is more than the 8 examples"):
        check_epochs(9, 100, 8)
    check_epochs(8, 1, 8)


# 36 rows in batches of 8: epochs end within the 5th, 9th and 14th step.
ROWS, STEPS = 36, 12


@pytest.fixture(scope="module")
def config_of(tiny_checkpoint):
    def make(**trajectories):
        config = small_config(str(tiny_checkpoint))
        config.mesh.update(data=2, fsdp=2, tensor=2)
        config.pool.limit = ROWS
        config.proxy.train.update(steps=STEPS, accumulation=2)
        config.evaluation.path = ""
        config.trajectories.update({"source": "train", **trajectories})
        del config.selection.runs["random"]
        # A slice of eleven rows has hardly two of a source.
        config.selection.runs.s2l = run(method="s2l", budget=10, stratify_by="none", train_target=False)
        return config

    return make


@pytest.fixture(scope="module")
def free(config_of, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("free")
    return workdir, run_pipeline(config_of(), workdir)


@pytest.fixture(scope="module")
def swept(config_of, tmp_path_factory):
    """The same training with a sweep before every step."""
    workdir = tmp_path_factory.mktemp("swept")
    run_pipeline(config_of(source="sweep", every=1, step_zero=True), workdir, stages=["pool", "proxy"])
    return workdir


def columns_of(workdir):
    return load_trajectories(workdir / "trajectories.zarr")


def test_losses_are_those_of_a_sweep_just_before_the_step(free, swept):
    ours, sweeps = columns_of(free[0]), columns_of(swept)
    assert ours.steps.tolist() == [5, 9]
    assert sweeps.steps.tolist() == list(range(STEPS + 1))
    want = np.full((ROWS, 2), np.nan)
    positions = np.arange(2 * ROWS)
    rows = visit_order(positions, ROWS, 0)
    want[rows, positions // ROWS] = sweeps.losses[rows, positions // 8]
    np.testing.assert_allclose(ours.losses, want, atol=2e-5)
    assert np.abs(sweeps.losses[:, 4] - sweeps.losses[:, 0]).max() > 1e-2, "losses change within an epoch"
    # Keeping them changes nothing in training.
    one, other = ((f / "proxy" / "losses.npy").read_bytes() for f in (free[0], swept))
    assert one == other


def test_it_is_called_what_it_is(free, swept):
    workdir, results = free
    assert results["trajectories"]["source"] == "train"
    assert results["proxy"]["sweep_flops"] == 0
    assert len(results["trajectories"]["refreshes"]) == 2
    assert "training losses of 2 epochs" in (workdir / "report" / "index.html").read_text()
    assert TrajectoryStore(workdir / "trajectories.zarr").num_examples == ROWS
    kinds = [
        json.loads((f / "trajectories.zarr" / "zarr.json").read_text())["attributes"]["source"]
        for f in (workdir, swept)
    ]
    assert kinds == ["train", "sweep"]
    assert len(Selection.load(workdir / "selection" / "s2l").indices) == 10


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("where", ["column", "checkpoint 6", "checkpoint 10", "lost checkpoint"])
def test_a_run_that_stopped_ends_with_the_same_bytes(free, config_of, tmp_path, monkeypatch, where):
    append, save = TrajectoryStore.append, Checkpoints.save

    def stopping_append(store, step, column):
        append(store, step, column)
        if where == "column":  # stored after the checkpoint of step 4, before any other
            raise Stopped

    def stopping_save(checkpoints, step, state):
        if where == f"checkpoint {step}":  # its losses are on disk, it is not
            raise Stopped
        save(checkpoints, step, state)
        if where == "lost checkpoint" and step == 8:
            checkpoints.wait()
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(TrajectoryStore, "append", stopping_append)
        patch.setattr(Checkpoints, "save", stopping_save)
        with pytest.raises(Stopped):
            run_pipeline(config_of(), tmp_path)
    if where == "lost checkpoint":
        for checkpoint in (tmp_path / "proxy" / "checkpoints").iterdir():
            for file in checkpoint.rglob("manifest.ocdbt"):
                file.unlink()
    results = run_pipeline(config_of(), tmp_path)
    assert columns_of(tmp_path).losses.tobytes() == columns_of(free[0]).losses.tobytes()
    assert columns_of(tmp_path).steps.tolist() == [5, 9]
    assert results["trajectories"] == free[1]["trajectories"]


def run_until_checkpoint(last, config, workdir, monkeypatch):
    """A run that stops once the checkpoint of a step is on disk."""
    save = Checkpoints.save

    def stopping_save(checkpoints, step, state):
        save(checkpoints, step, state)
        if step == last:
            checkpoints.wait()
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopping_save)
        with pytest.raises(Stopped):
            run_pipeline(config, workdir)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_losses_of_the_epoch_under_way_that_are_damaged(config_of, tmp_path, monkeypatch, damage):
    run_until_checkpoint(2, config_of(), tmp_path, monkeypatch)
    file = tmp_path / "proxy" / "epoch_losses.npz"
    data = file.read_bytes()
    at = data.index(b"losses.npy") + 150  # in the numbers
    file.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:at] + b"abc" + data[at + 3 :])
    if damage == "gone":
        file.unlink()
    with pytest.raises(InputError, match=rf"^{file}.* To train again, remove {tmp_path}/proxy"):
        run_pipeline(config_of(), tmp_path)


def test_columns_that_are_lost_at_the_end_of_an_epoch_are_missed(config_of, tmp_path, monkeypatch):
    """Where training goes on with a new epoch, whose column is whole by itself."""
    config = config_of()
    config.pool.limit = 32  # epochs of four steps
    run_until_checkpoint(4, config, tmp_path, monkeypatch)
    assert columns_of(tmp_path).steps.tolist() == [4]
    shutil.rmtree(tmp_path / "trajectories.zarr")
    with pytest.raises(InputError, match="lacks the columns of step 4, which were measured"):
        run_pipeline(config, tmp_path)


def test_of_a_slice(free, config_of, tmp_path):
    run_pipeline(config_of(slice_count=11), tmp_path)
    ours, whole = columns_of(tmp_path), columns_of(free[0])
    rows = np.flatnonzero(np.isin(whole.ids, ours.ids))
    assert len(rows) == 11
    assert ours.losses.tobytes() == np.ascontiguousarray(whole.losses[rows]).tobytes()


def test_less_than_an_epoch_is_refused(config_of, tmp_path):
    config = config_of()
    config.proxy.train.steps = 4
    with pytest.raises(InputError, match="the proxy's run sees 32 of 36 examples"):
        run_pipeline(config, tmp_path)


def test_a_step_reports_losses_only_where_asked(one_device_mesh):
    examples = [TokenizedExample(np.arange(1, n, dtype=np.int32), 2, False, False) for n in (4, 9, 7, 12)]
    batches = Batches(
        TokenizedList(examples), np.arange(4), np.ones(4, np.float32), batch_size=4, num_steps=1, seed=0,
        max_length=32, microbatches=2,
    )  # fmt: skip
    config = load_config(GOLDEN / "gpt_neox")
    state = abstract_state(config, OptimizerSettings(), 1, one_device_mesh)
    batch = batches.read(0)
    for asked in (False, True):
        step = make_train_step(config, OptimizerSettings(), 1, one_device_mesh, keep_losses=asked)
        _, metrics = jax.eval_shape(step, state, batch.rows)
        shape = None if metrics.example_losses is None else metrics.example_losses.shape
        assert shape == (batch.slots.shape if asked else None)
    assert sorted(batch.slots[batch.slots >= 0]) == [0, 1, 2, 3]
