"""Where a training run's numbers go: TensorBoard, the loss history on disk, and the progress line."""

import time
from collections.abc import Sequence

import numpy as np
from etils import epath
from jaxtyping import Float32

from s2l_jax import artifacts
from s2l_jax.console import Progress
from s2l_jax.data.batching import Size
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.parallel import processes
from s2l_jax.training.boards import Board, Shown
from s2l_jax.training.flops import peak_flops, training_flops
from s2l_jax.training.hooks import FinishedStep, Hook

HISTORY = "losses.npy"


class Metrics(Hook):
    """The loss history of one run (`losses.npy`), and what is shown of it on the way.

    Args:
      path: the run's folder.
      config: settings of the decoder, for FLOPs.
      label: names the run on the progress line.
      start: finished steps of the run that this one goes on from.
      num_steps: length of the run.
      log_every: steps between points on the boards.
      losses: of the finished steps; those that come are added to this list.
      boards: that show them; none in a process that does not write.
    """

    def __init__(
        self,
        path: epath.Path,
        config: DecoderConfig,
        label: str,
        start: int,
        num_steps: int,
        log_every: int,
        losses: list[float] | None = None,
        boards: Sequence[Board] = (),
    ):
        self._path, self._config, self._every = path, config, log_every
        self.losses = [] if losses is None else losses
        self._progress = Progress(label, num_steps, "steps", done=start)
        self.restart_clock()
        self._boards = boards

    def after_step(self, finished: FinishedStep) -> None:
        step = finished.batch.step + 1
        self.losses.append(finished.loss)
        self._size += finished.batch.size
        seconds = max(time.monotonic() - self._since - self._idle, 1e-9)
        tokens = self._size.tokens / seconds
        utilisation = training_flops(self._config, self._size) / seconds / peak_flops()
        self._progress.update(
            step,
            f"loss {finished.loss:.3f}, lr {finished.learning_rate:.1e}, {tokens:,.0f} tokens/s, "
            f"MFU {utilisation:.0%}",
        )
        if step % self._every == 0:
            points = {
                "loss": finished.loss,
                "grad_norm": finished.grad_norm,
                "learning_rate": finished.learning_rate,
                "tokens_per_second": tokens,
                "model_flops_utilisation": utilisation,
            }
            self.show(Shown(step, points))
            self.restart_clock()

    def show(self, shown: Shown) -> None:
        """Show what else was measured."""
        for board in self._boards:
            board.show(shown)

    def restart_clock(self) -> None:
        """Begin a new window for speeds."""
        self._size, self._since, self._idle = Size(0, 0, 0), time.monotonic(), 0.0

    def pause(self, seconds: float) -> None:
        """Leave out time that was not spent training (a loss sweep, say)."""
        self._idle += seconds

    def before_checkpoint(self, step: int) -> None:
        if processes.is_writer():
            artifacts.write_npy(self._path / HISTORY, np.array(self.losses, np.float32))
        for board in self._boards:
            board.publish()

    def close(self) -> None:
        self._progress.close(f"loss {self.losses[-1]:.3f}" if self.losses else "")


def loss_curve(losses: Float32[np.ndarray, "s"], points: int = 500) -> dict[str, list]:
    """A loss history thinned to means over at most `points` equal stretches."""
    stretch = -(-len(losses) // points)
    starts = range(0, len(losses), stretch)
    means = [float(np.mean(losses[start : start + stretch])) for start in starts]
    return {"step": [min(start + stretch, len(losses)) for start in starts], "loss": means}
