"""Training goes on bit for bit after an interruption, and stops with its work intact when it must."""

import dataclasses
import os
import pathlib
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl_logging
from etils import epath

from s2l_jax import artifacts, stopping
from s2l_jax.data.batching import Batches
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.errors import DivergedError
from s2l_jax.models import hf
from s2l_jax.models.parameters import flatten_params, model_params
from s2l_jax.parallel.placement import load_model
from s2l_jax.training import loop
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.training.hooks import Hook
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import init_state, make_train_step
from tests.support.paths import GOLDEN
from tests.support.tensorboard import curve

GPT_NEOX = GOLDEN / "gpt_neox"
CONFIG = hf.load_config(GPT_NEOX)
STEPS = 8
SETTINGS = loop.TrainSettings(
    OptimizerSettings(learning_rate=1e-2), checkpoint_every=2, keep_checkpoints=2, log_every=2
)
SWEEPS = (0, 3, 5, 8)

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Stop(Exception):
    """Stands for a kill."""


def make_batches():
    rng = np.random.default_rng(0)
    examples = [
        TokenizedExample(rng.integers(0, 64, n).astype(np.int32), 2, False, False)
        for n in rng.integers(6, 16, 20)
    ]
    return Batches(
        TokenizedList(examples),
        np.arange(20),
        np.ones(20, np.float32),
        batch_size=8,
        num_steps=STEPS,
        seed=1,
        max_length=32,
    )


BATCHES = make_batches()


def digest(params):
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten_params(params).items()}


class Trainer:
    """Runs the loop under one folder and keeps what its sweeps saw."""

    def __init__(self, path, mesh):
        self.path, self.mesh, self.swept = epath.Path(path), mesh, {}

    def __call__(self, at_sweep=lambda step: None, hooks=()):
        trainer = self

        class Sweep(Hook):
            def is_due(self, step):
                return step in SWEEPS

            def at_cadence(self, step, params):
                at_sweep(step)
                trainer.swept[step] = digest(params)

        return loop.train(
            CONFIG,
            lambda: model_params(load_model(str(GPT_NEOX), self.mesh)),
            BATCHES,
            SETTINGS,
            self.mesh,
            self.path,
            label="test",
            hooks=[Sweep(), *hooks],
        )

    def until(self, last):
        """Train and be stopped in the sweep after `last` steps."""

        def at_sweep(step):
            if step == last:
                raise Stop

        with pytest.raises(Stop):
            self(at_sweep)

    def checkpoints(self):
        names = [p.name for p in (self.path / "checkpoints").iterdir()]
        return sorted(int(name) for name in names if name.isdigit())


@pytest.fixture
def trainer(tmp_path, one_device_mesh):
    return Trainer(tmp_path / "run", one_device_mesh)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, one_device_mesh):
    trainer = Trainer(tmp_path_factory.mktemp("unbroken"), one_device_mesh)
    result = trainer()
    return trainer, result


@pytest.fixture
def same_end(unbroken):
    reference, expected = unbroken

    def check(trainer, result):
        assert result.losses.tobytes() == expected.losses.tobytes()
        assert digest(result.params) == digest(expected.params)
        assert trainer.swept == reference.swept
        assert artifacts.read_npy(trainer.path / "losses.npy").tobytes() == result.losses.tobytes()
        assert trainer.checkpoints() == [6, 8]

    return check


def test_an_unbroken_run_learns_and_leaves_its_files(unbroken):
    trainer, result = unbroken
    assert result.losses.shape == (STEPS,)
    assert result.losses[-1] < result.losses[0] - 0.1
    assert set(trainer.swept) == set(SWEEPS)
    assert trainer.swept[0] == digest(model_params(load_model(str(GPT_NEOX))))
    assert trainer.swept[STEPS] == digest(result.params)
    np.testing.assert_array_equal(artifacts.read_npy(trainer.path / "losses.npy"), result.losses)
    assert trainer.checkpoints() == [6, 8]


def test_a_finished_run_trains_nothing_more(unbroken, monkeypatch):
    trainer, result = unbroken
    monkeypatch.setattr(Batches, "read", lambda *_: pytest.fail("a batch was read"))
    again = Trainer(trainer.path, trainer.mesh)
    repeated = again()
    assert digest(repeated.params) == digest(result.params)
    np.testing.assert_array_equal(repeated.losses, result.losses)
    assert not again.swept


@pytest.mark.parametrize("last", [0, 3, 5, 8])
def test_a_stopped_run_goes_on_bit_for_bit(last, trainer, same_end):
    trainer.until(last)
    # A sweep comes before the checkpoint of the same step.
    assert max(trainer.checkpoints(), default=0) == (last - 1) // 2 * 2 if last else True
    same_end(trainer, trainer())


def largest(checkpoint):
    return max((f for f in checkpoint.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(checkpoint):
    data = largest(checkpoint).read_bytes()
    largest(checkpoint).write_bytes(data[: len(data) // 2])


def garble(checkpoint):
    data = bytearray(largest(checkpoint).read_bytes())
    data[len(data) // 2] ^= 0x10
    largest(checkpoint).write_bytes(bytes(data))


def lose_metadata(checkpoint):
    (checkpoint / "default" / "manifest.ocdbt").unlink()


@pytest.mark.parametrize("damage", [truncate, garble, lose_metadata])
def test_a_broken_newest_checkpoint_is_passed_over(damage, trainer, same_end, monkeypatch):
    trainer.until(5)
    assert trainer.checkpoints() == [2, 4]
    damage(pathlib.Path(trainer.path) / "checkpoints" / "4")
    warnings = []
    monkeypatch.setattr(absl_logging, "warning", lambda text, *args: warnings.append(text % args))
    same_end(trainer, trainer())
    (warning,) = (w for w in warnings if "cannot be read" in w)
    assert "checkpoint 4" in warning
    assert "the one before" in warning
    assert len(warning) < 600


def test_a_run_without_a_readable_checkpoint_starts_over(trainer, same_end):
    trainer.until(5)
    for step in ("2", "4"):
        garble(pathlib.Path(trainer.path) / "checkpoints" / step)
    same_end(trainer, trainer())


def test_a_checkpoint_restores_onto_another_mesh(unbroken, cube_mesh):
    trainer, result = unbroken
    model = load_model(str(GPT_NEOX), cube_mesh)
    fresh = init_state(CONFIG, SETTINGS.optimizer, STEPS, cube_mesh, model_params(model))
    with Checkpoints(trainer.path / "checkpoints", 2) as checkpoints:
        state = checkpoints.restore(fresh)
    assert int(state.step) == STEPS
    assert digest(state.params) == digest(result.params)
    same = jax.tree.map(lambda a, b: a.sharding == b.sharding, state, fresh)
    assert jax.tree.all(same)


@pytest.mark.parametrize("what", ["loss", "grad_norm"])
def test_a_diverging_run_stops_and_names_its_batch(what, trainer, monkeypatch, same_end):
    at = 5

    def make_poisoned_step(*args, **options):
        real_step = make_train_step(*args, **options)

        def step(state, *inputs):
            state, metrics = real_step(state, *inputs)
            if int(state.step) >= at:
                bad = jnp.float32("nan" if what == "loss" else "inf")
                metrics = dataclasses.replace(metrics, **{what: bad})
            return state, metrics

        return step

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_train_step", make_poisoned_step)
        with pytest.raises(DivergedError) as caught:
            trainer()
    bad = BATCHES.read(at - 1).examples.tolist()
    message = str(caught.value)
    assert f"step {at} " in message
    assert ", ".join(map(str, bad[:5])) in message
    assert "nan" in message if what == "loss" else "inf" in message
    report = artifacts.read_json(trainer.path / "diverged.json")
    assert report == {"step": at, "pool_rows": bad}
    assert trainer.checkpoints() == [2, 4]
    assert [step for step, _ in curve(trainer.path, "loss")] == [2, 4], "flushed"
    same_end(trainer, trainer())


def test_poisoned_weights_stop_at_once(trainer, monkeypatch):
    real_load = load_model

    def poisoned(*args):
        model = real_load(*args)
        model.final_norm.bias[...] = model.final_norm.bias[...].at[3].set(jnp.nan)
        return model

    monkeypatch.setitem(globals(), "load_model", poisoned)
    with pytest.raises(DivergedError, match="step 1 has loss nan"):
        trainer()
    assert trainer.checkpoints() == []


def test_a_checkpoint_that_cannot_be_written_is_an_oserror(trainer, same_end):
    """After step 5 no file may grow past 40 kB, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(step):
        if step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))

    try:
        with pytest.raises(OSError, match=r"checkpoint of step [46] could not be written") as caught:
            trainer(fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in str(caught.value)
    assert trainer.checkpoints() in ([2, 4], [2])  # 4 may have been under way
    same_end(trainer, trainer())


def test_a_failing_write_does_not_hide_what_stopped_the_run(trainer, monkeypatch):
    def fail(self):
        raise ValueError("RESOURCE_EXHAUSTED: no space left")

    def break_checkpoints(step):
        if step == 3:
            monkeypatch.setattr("orbax.checkpoint.CheckpointManager.wait_until_finished", fail)
            raise Stop

    with pytest.raises(Stop):
        trainer(break_checkpoints)


class StopAt(Hook):
    """Ends training as a preemption would."""

    def __init__(self, step):
        self.step, self.calls = step, []

    def should_stop(self, step):
        return step == self.step

    def before_checkpoint(self, step):
        self.calls.append(("checkpoint", step))

    def close(self):
        self.calls.append("close")


@pytest.mark.parametrize(("step", "saved"), [(3, [2, 3]), (4, [2, 4])])
def test_a_hook_ends_training_with_a_checkpoint_to_go_on_from(step, saved, trainer, unbroken, same_end):
    stop = StopAt(step)
    result = trainer(hooks=[stop])
    assert result.losses.tobytes() == unbroken[1].losses[:step].tobytes()
    assert trainer.checkpoints() == saved
    assert stop.calls == [*(("checkpoint", n) for n in saved), "close"]
    again = Trainer(trainer.path, trainer.mesh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_step", lambda *_, **__: lambda *_: pytest.fail("a step was taken"))
        again(hooks=[StopAt(step)])  # it is asked before the first step too
    same_end(trainer, trainer())


class Signalled(Hook):
    """Gets a signal after a step, while the next one runs."""

    def after_step(self, finished):
        if finished.batch.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_training_with_a_checkpoint_of_the_step_under_way(trainer, same_end):
    before = signal.getsignal(signal.SIGTERM)
    stopping.listen()
    try:
        with pytest.raises(stopping.Stopped):
            trainer(hooks=[Signalled()])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trainer.checkpoints()[-1] in (3, 4)
    same_end(trainer, trainer())


class Listener(Hook):
    """Writes down what it is told."""

    needs_example_losses = True

    def __init__(self):
        self.calls, self.steps = [], []

    def is_due(self, step):
        return step in (0, 3)

    def at_cadence(self, step, params):
        self.calls.append(f"cadence {step}")

    def after_step(self, finished):
        self.calls.append(f"step {finished.batch.step + 1}")
        self.steps.append(finished)

    def before_checkpoint(self, step):
        self.calls.append(f"checkpoint {step}")

    def should_stop(self, step):
        self.calls.append(f"stop {step}?")
        return False

    def close(self):
        self.calls.append("close")


def test_hooks_are_told_in_order(trainer, same_end):
    hook = Listener()
    result = trainer(hooks=[hook])
    calls = " ".join(hook.calls)
    assert calls.startswith(
        "cadence 0 stop 0? stop 1? step 1 step 2 stop 2? checkpoint 2 step 3 cadence 3 stop 3?"
    )
    assert calls.endswith("step 8 stop 8? checkpoint 8 close")
    assert [finished.loss for finished in hook.steps] == result.losses.tolist()
    for finished in hook.steps:
        assert finished.example_losses.shape == (8,)
        # Token means, of examples of some lengths: near their mean, and not it.
        assert abs(finished.example_losses.mean() - finished.loss) < 0.3
    same_end(trainer, result)


def test_hooks_are_closed_when_training_fails(trainer):
    hook = Listener()
    with pytest.raises(Stop):
        trainer(lambda step: (_ for _ in ()).throw(Stop) if step == 3 else None, hooks=[hook])
    assert hook.calls[-1] == "close"


def test_tensorboard_shows_each_point_once_after_a_resumption(unbroken, trainer, same_end):
    reference, result = unbroken
    want = [(step, float(result.losses[step - 1])) for step in (2, 4, 6, 8)]
    assert curve(reference.path, "loss") == want
    rates = curve(reference.path, "learning_rate")
    assert [step for step, _ in rates] == [2, 4, 6, 8]
    for tag in ("grad_norm", "tokens_per_second", "model_flops_utilisation"):
        assert all(value > 0 for _, value in curve(reference.path, tag))
    trainer.until(5)
    shutil.rmtree(trainer.path / "checkpoints" / "4")
    same_end(trainer, trainer())  # from step 2: point 4 is written again
    assert curve(trainer.path, "loss") == want
