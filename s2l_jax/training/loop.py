"""The training loop: from the last good checkpoint to the last step."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float32

from s2l_jax import artifacts, stopping
from s2l_jax.data.batching import Batch, Batches
from s2l_jax.errors import DivergedError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import Params
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training.boards import Board, TensorBoard, WeightsAndBiases
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.training.hooks import FinishedStep, Hook
from s2l_jax.training.loss import LossFunction
from s2l_jax.training.metrics import Metrics
from s2l_jax.training.optimizer import OptimizerSettings, learning_rate_schedule
from s2l_jax.training.step import StepMetrics, abstract_state, init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How a model is trained; the fields are those of `train` in the config, and of the run."""

    optimizer: OptimizerSettings
    loss: str | LossFunction = "token"  # a name in `loss.LOSSES`, or what each token counts
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2
    log_every: int = 10  # steps
    wandb: str = ""  # project of Weights & Biases; "": none


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    params: Params
    losses: Float32[np.ndarray, "s"]  # of each step; fewer than the run has where a hook ended it


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
    hooks: Sequence[Hook] = (),
) -> TrainResult:
    """Train to the last step, from the newest readable checkpoint under `path` if there is one.

    Args:
      initial_params: gives float32 parameters on the mesh; the first step consumes them. With LoRA
        they are the adapters.
      batches: what each step sees.
      path: the run's folder.
      label: names the run on the progress line.
      frozen: the parameters that are not trained: with LoRA those of the base, in the training dtype.
      hooks: what else is done on the way, in this order; one of them may end training early.

    Raises:
      Stopped: a signal asked for it; a checkpoint of the last step was written.
      DivergedError: a loss or gradient norm that is not finite; no checkpoint is written after it.
      OSError: a checkpoint could not be written.
    """
    # All at once: a rate that is asked for between two steps would wait for the device.
    schedule = learning_rate_schedule(settings.optimizer, batches.num_steps)
    rates = np.asarray(jax.vmap(schedule)(np.arange(batches.num_steps)))
    shape = config, settings.optimizer, batches.num_steps, mesh
    step_fn = make_train_step(
        *shape,
        loss=settings.loss,
        dtype=DTYPES[settings.dtype],
        remat=settings.remat,
        attention=settings.attention,
        keep_losses=any(hook.needs_example_losses for hook in hooks),
    )
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(path / "checkpoints", settings.keep_checkpoints))
        # Restored before anything is initialised, so that memory never holds two states.
        state = checkpoints.restore(abstract_state(*shape)) or init_state(*shape, initial_params())
        start = int(state.step)
        losses = checkpoints.losses
        boards: list[Board] = []
        for board in _boards(path, settings, start) if processes.is_writer() else ():
            stack.callback(board.close)
            boards.append(board)
        metrics = Metrics(path, config, label, start, batches.num_steps, settings.log_every, losses, boards)
        others, hooks = hooks, (metrics, *hooks)
        for hook in hooks:
            stack.callback(hook.close)

        def show() -> None:
            for hook in others if boards else ():
                if (shown := hook.shown()) is not None:
                    metrics.show(shown)

        for hook in hooks:
            if start == 0 and hook.is_due(0):
                hook.at_cadence(0, state.params)
        show()
        if _should_stop(hooks, start):
            return TrainResult(state.params, np.array(losses, np.float32))
        pending: tuple[Batch, StepMetrics] | None = None

        def settle() -> None:
            # Numbers are read one step late, so that the host never holds up the devices.
            nonlocal pending
            if pending is not None:
                batch, values = pending
                pending = None
                finished = _finished(batch, values, float(rates[batch.step]), path)
                for hook in hooks:
                    hook.after_step(finished)
                show()

        stack.enter_context(stopping.after_this_step())
        for batch in batches.from_step(start):
            state, values = step_fn(state, put_rows(mesh, batch.rows, axis=1), frozen)
            settle()
            pending = batch, values
            done = batch.step + 1
            at_cadence = [hook for hook in hooks if hook.is_due(done)]
            due = done == batches.num_steps or done % settings.checkpoint_every == 0
            if at_cadence or due:
                settle()
            begin = time.monotonic()
            with stopping.at_once():  # without its columns no checkpoint can be of this step
                for hook in at_cadence:
                    hook.at_cadence(done, state.params)
            show()
            told = processes.told_to_stop()
            stop = _should_stop(hooks, done) or told
            if stop or due:
                settle()
                for hook in hooks:
                    hook.before_checkpoint(done)
                checkpoints.save(done, state)
            metrics.pause(time.monotonic() - begin)
            if told:
                checkpoints.wait()
            if stop:
                break
            if done == start + 1:
                metrics.restart_clock()  # the first step compiled
    return TrainResult(state.params, np.array(losses, np.float32))


def _boards(path: epath.Path, settings: TrainSettings, start: int) -> Iterator[Board]:
    yield TensorBoard(path, start)
    if settings.wandb:
        beside = dataclasses.asdict(settings) | {"loss": str(settings.loss)}
        yield WeightsAndBiases(settings.wandb, path, beside)


def _should_stop(hooks: Sequence[Hook], step: int) -> bool:
    # All are asked, as processes may have to agree on an answer.
    answers = [hook.should_stop(step) for hook in hooks]
    return any(answers)


def _finished(batch: Batch, values: StepMetrics, rate: float, path: epath.Path) -> FinishedStep:
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
    losses = None
    if values.example_losses is not None:
        losses, held = np.zeros(len(batch.examples), np.float32), batch.slots >= 0
        losses[batch.slots[held]] = np.asarray(values.example_losses)[held]
    return FinishedStep(batch, loss, norm, rate, losses)
