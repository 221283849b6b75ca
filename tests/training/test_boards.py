"""Boards: what TensorBoard and Weights & Biases are given of a run, and its columns' losses and clusters."""

import sys
import types

import numpy as np
import pytest
from etils import epath

from s2l_jax.clustering import StreamingKMeans
from s2l_jax.errors import InputError
from s2l_jax.training.boards import Shown, TensorBoard, WeightsAndBiases, check_wandb
from s2l_jax.trajectories.sweep import LossSweeper
from s2l_jax.trajectories.training_losses import TrainingLossRecorder
from s2l_jax.trajectories.writer import TrajectoryWriter
from tests.support.tensorboard import summaries

LOSSES = np.linspace(0.5, 3.0, 40, dtype=np.float32)


def test_tensorboard_has_a_histogram_of_each_array(tmp_path):
    board = TensorBoard(epath.Path(tmp_path), 0)
    board.show(Shown(5, {"agreement": 0.75}, {"losses": LOSSES}))
    board.close()
    (_, agreement), (step, losses) = summaries(tmp_path)
    assert (agreement.tag, agreement.simple_value) == ("agreement", 0.75)
    assert (step, losses.tag) == (5, "losses")
    assert losses.histo.num == 40
    assert sum(losses.histo.bucket) == 40
    assert losses.histo.min == pytest.approx(0.5)
    assert losses.histo.sum == pytest.approx(float(LOSSES.sum()), rel=1e-6)


@pytest.fixture
def writer(tmp_path):
    def make():
        ids = np.arange(40, dtype=np.uint64)
        return TrajectoryWriter(tmp_path / "trajectories.zarr", ids, {}, StreamingKMeans(40, 2))

    return make


def test_a_sweep_shows_its_losses_and_the_clusters_agreement_once(writer):
    kept = writer()
    sweeper = LossSweeper(lambda params: LOSSES * params, np.arange(40), kept, [10, 20])
    assert sweeper.shown() is None
    sweeper.at_cadence(10, 1.0)
    first = sweeper.shown()
    assert first.numbers == {"trajectories/mean_loss": pytest.approx(1.75)}  # no clusters to agree with
    sweeper.at_cadence(20, 0.5)
    second = sweeper.shown()
    assert second.step == 20
    assert np.array_equal(second.arrays["trajectories/losses"], LOSSES * np.float32(0.5))
    assert second.numbers["trajectories/cluster_agreement"] == kept.clusters.records[1].adjusted_rand > 0
    assert sweeper.shown() is None
    # Of a step that is gone through again, as its checkpoint was not written, the point was taken back.
    again = LossSweeper(lambda params: 1 / 0, np.arange(40), writer(), [10, 20])
    again.at_cadence(20, 1.0)
    shown = again.shown()
    assert shown.numbers == second.numbers
    assert np.array_equal(shown.arrays["trajectories/losses"], second.arrays["trajectories/losses"])


def test_losses_of_training_are_shown_with_the_step_that_ends_their_epoch(tmp_path, writer):
    rows = np.arange(40)
    recorder = TrainingLossRecorder(epath.Path(tmp_path), rows, rows, 20, writer())
    for step in range(2):
        batch = types.SimpleNamespace(step=step, examples=rows[20 * step : 20 * step + 20])
        losses = LOSSES[batch.examples]
        recorder.after_step(types.SimpleNamespace(batch=batch, example_losses=losses))
        if step == 0:
            assert recorder.shown() is None
    shown = recorder.shown()
    assert shown.step == 2
    assert np.array_equal(shown.arrays["trajectories/losses"], LOSSES)


def test_weights_and_biases_keeps_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):  # the second goes on from an interruption
        board = WeightsAndBiases("s2l", epath.Path(tmp_path), {"learning_rate": 0.1})
        board.show(Shown(5, {"loss": 0.75}, {"losses": LOSSES}))
        board.close()
    runs = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) >= 1
    assert len({run.stem for run in runs}) == 1  # one id
    assert b"losses" in b"".join(run.read_bytes() for run in runs)


class FakeRun:
    def __init__(self):
        self.logged, self.metrics, self.finished = [], [], False

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


class FakeError(Exception):
    pass


def fake_wandb(init):
    return types.SimpleNamespace(
        init=init,
        errors=types.SimpleNamespace(Error=FakeError),
        Settings=lambda **options: options,
        Histogram=lambda np_histogram: np_histogram,
    )


def test_weights_and_biases_gets_steps_numbers_and_histograms(tmp_path, monkeypatch):
    run, asked = FakeRun(), []
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(lambda **options: asked.append(options) or run))
    path = epath.Path(tmp_path) / "target" / "s2l"
    board = WeightsAndBiases("s2l", path, {"learning_rate": 0.1})
    board.show(Shown(5, {"loss": 0.75}, {"losses": LOSSES}))
    board.close()
    (options,) = asked
    assert (options["project"], options["resume"]) == ("s2l", "allow")
    assert options["name"] == f"{tmp_path.name}/target/s2l"
    assert options["config"] == {"learning_rate": 0.1}
    assert run.metrics == [("*", "step")]
    (logged,) = run.logged
    assert (logged["step"], logged["loss"]) == (5, 0.75)
    assert logged["losses"][0].sum() == 40
    assert run.finished


def test_what_weights_and_biases_refuses_names_a_way_out(tmp_path, monkeypatch):
    def refuse(**options):
        raise FakeError("no API key")

    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(refuse))
    with pytest.raises(InputError, match=r"wandb='s2l': .*no API key.*WANDB_MODE=offline"):
        WeightsAndBiases("s2l", epath.Path(tmp_path), {})


def test_weights_and_biases_without_its_library_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_wandb("")
    with pytest.raises(InputError, match=r"wandb='s2l': the library .* pip install wandb"):
        check_wandb("s2l")
