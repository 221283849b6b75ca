"""The training loop: from the last good checkpoint to the last step."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float32

from s2l_jax import artifacts
from s2l_jax.data.batching import Batch, Batches
from s2l_jax.errors import DivergedError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import Params
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.training.metrics import Metrics
from s2l_jax.training.optimizer import OptimizerSettings, learning_rate_schedule
from s2l_jax.training.step import (
    StepMetrics,
    abstract_state,
    init_state,
    make_train_step,
)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How a model is trained; the fields are those of `train` in the config, and `attention`."""

    optimizer: OptimizerSettings
    loss: str = "token"
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2
    log_every: int = 10  # steps


class LossRecorder(Protocol):
    """Takes the loss of each example as training visits it."""

    def record(self, batch: Batch, losses: Float32[np.ndarray, "b"]) -> None:
        """The losses of a step's examples before the step, in the order of `batch.examples`."""

    def save(self) -> None:
        """A checkpoint follows, from which a later run may go on: put on disk what it will need."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    params: Params
    losses: Float32[np.ndarray, "s"]  # of each step


def train(
    config: DecoderConfig,
    initial_params: Callable[[], Params],
    batches: Batches,
    settings: TrainSettings,
    mesh: Mesh,
    path: epath.Path,
    *,
    label: str,
    frozen: Params | None = None,
    sweep_steps: Collection[int] = (),
    sweep: Callable[[int, Params], None] = lambda step, params: None,
    enough: Callable[[int], bool] = lambda step: False,
    recorder: LossRecorder | None = None,
) -> TrainResult:
    """Train to the last step, or until `enough`; goes on from the newest readable checkpoint under `path`.

    Args:
      config: settings of the decoder.
      initial_params: gives float32 parameters on the mesh; the first step consumes them. With LoRA
        they are the adapters.
      batches: what each step sees.
      settings: optimiser, precision, cadence of checkpoints.
      mesh: the device mesh.
      path: the run's folder.
      label: names the run on the progress line.
      frozen: the parameters that are not trained: with LoRA those of the base, in the training dtype.
      sweep_steps: numbers of finished steps at which to call `sweep`.
      sweep: called with the number of finished steps and the live parameters; must not keep them.
      enough: whether to end after as many steps; asked at the start and after each sweep.
      recorder: told the losses of every step's examples; after an interruption steps may come again.

    Raises:
      DivergedError: a loss or gradient norm that is not finite; no checkpoint is written after it.
      OSError: a checkpoint could not be written.
    """
    rate = learning_rate_schedule(settings.optimizer, batches.num_steps)
    step_fn = make_train_step(
        config,
        settings.optimizer,
        batches.num_steps,
        mesh,
        loss=settings.loss,
        dtype=DTYPES[settings.dtype],
        remat=settings.remat,
        attention=settings.attention,
        keep_losses=recorder is not None,
    )
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(path / "checkpoints", settings.keep_checkpoints))
        # Restored before anything is initialised, so that memory never holds two states.
        state = checkpoints.restore(
            abstract_state(config, settings.optimizer, batches.num_steps, mesh)
        ) or init_state(config, settings.optimizer, batches.num_steps, mesh, initial_params())
        start = int(state.step)
        metrics = stack.enter_context(
            contextlib.closing(Metrics(path, config, label, start, batches.num_steps, settings.log_every))
        )
        if start == 0 and 0 in sweep_steps:
            sweep(0, state.params)
        if enough(start):
            return TrainResult(state.params, np.array(metrics.losses, np.float32))
        pending: tuple[Batch, StepMetrics] | None = None

        def settle() -> None:
            # Numbers are read one step late, so that the host never holds up the devices.
            nonlocal pending
            if pending is not None:
                batch, values = pending
                pending = None
                _record(metrics, batch, values, float(rate(batch.step)), path)
                if recorder is not None:
                    recorder.record(batch, _by_example(batch, values))

        for batch in batches.from_step(start):
            state, values = step_fn(state, put_rows(mesh, batch.rows, axis=1), frozen)
            settle()
            pending = batch, values
            done = batch.step + 1
            at_end = done == batches.num_steps
            if done in sweep_steps or at_end or done % settings.checkpoint_every == 0:
                settle()
                begin = time.monotonic()
                if done in sweep_steps:
                    sweep(done, state.params)
                last = at_end or (done in sweep_steps and enough(done))
                if last or done % settings.checkpoint_every == 0:
                    metrics.save()
                    if recorder is not None:
                        recorder.save()
                    checkpoints.save(done, state)
                metrics.pause(time.monotonic() - begin)
                if last:
                    break
            if done == start + 1:
                metrics.restart_clock()  # the first step compiled
    return TrainResult(state.params, np.array(metrics.losses, np.float32))


def _by_example(batch: Batch, values: StepMetrics) -> Float32[np.ndarray, "b"]:
    losses = np.zeros(len(batch.examples), np.float32)
    held = batch.slots >= 0
    losses[batch.slots[held]] = np.asarray(values.example_losses)[held]
    return losses


def _record(metrics: Metrics, batch: Batch, values: StepMetrics, rate: float, path: epath.Path) -> None:
    loss, norm = float(values.loss), float(values.grad_norm)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        report = path / "diverged.json"
        if processes.is_writer():
            artifacts.write_json(report, {"step": batch.step + 1, "pool_rows": batch.examples.tolist()})
        raise DivergedError(
            f"{path}: step {batch.step + 1} has loss {loss} and gradient norm {norm}; pool rows of "
            f"its batch: {', '.join(map(str, batch.examples[:5]))}, ... (all {len(batch.examples)} in "
            f"{report}). The last good checkpoint is kept. Lower train.learning_rate, or look at these rows."
        )
    metrics.record(batch.step + 1, loss, norm, rate, batch.size)
