"""Free trajectories: the loss each example had when training visited it, a column for each epoch."""

import math

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64

from s2l_jax import integrity
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes
from s2l_jax.training.boards import Shown
from s2l_jax.training.hooks import FinishedStep, Hook
from s2l_jax.trajectories.writer import TrajectoryWriter

PARTIAL = "epoch_losses.npz"  # what is known of the epoch under way, as of the last checkpoint


def check_epochs(batch_size: int, num_steps: int, num_examples: int) -> None:
    """Raise InputError for a run that ends before its first epoch does, or whose steps hold more than one."""
    if batch_size > num_examples:
        raise InputError(
            "trajectories.source='train' measures an example once an epoch, but a step of "
            f"proxy.train.batch_size={batch_size} is more than the {num_examples} examples there are. Lower "
            "it, or use source='sweep'."
        )
    if batch_size * num_steps < num_examples:
        raise InputError(
            "trajectories.source='train' has a column for each whole epoch, but the proxy's run sees "
            f"{batch_size * num_steps} of {num_examples} examples. Train it longer, or use source='sweep'."
        )


def epoch_ends(batch_size: int, num_steps: int, num_examples: int) -> list[int]:
    """The steps that end an epoch, with each of which a column is whole."""
    epochs = batch_size * num_steps // num_examples
    return [math.ceil(epoch * num_examples / batch_size) for epoch in range(1, epochs + 1)]


class TrainingLossRecorder(Hook):
    """Gathers the losses that training steps compute anyway into one column an epoch.

    Every epoch visits each example once, and a batch that reaches past the end of an epoch goes on
    into the next: each of its examples counts in the epoch it belongs to. Within a column examples
    were measured at different steps, each just before the step it was part of. A column is whole, and
    handed on, with the step that ends its epoch; an epoch that the run does not finish has none.

    Args:
      path: the training run's folder.
      subset: pool rows that are trained on, sorted.
      tracked: pool rows that columns are of, sorted; 0 for those without a loss.
      batch_size: examples of a step, at most an epoch.
      writer: takes the columns.
    """

    needs_example_losses = True

    def __init__(
        self,
        path: epath.Path,
        subset: Int64[np.ndarray, "n"],
        tracked: Int64[np.ndarray, "s"],
        batch_size: int,
        writer: TrajectoryWriter,
    ):
        self._file, self._tracked, self._writer = path / PARTIAL, tracked, writer
        self._epoch_size, self._batch_size, self._epoch = len(subset), batch_size, len(writer.steps)
        self._empty = np.where(np.isin(tracked, subset), np.float32("nan"), np.float32(0))
        self._column = self._restored()

    def after_step(self, finished: FinishedStep) -> None:
        batch, losses = finished.batch, finished.example_losses
        assert losses is not None
        first = batch.step * self._batch_size
        epochs = np.arange(first, first + self._batch_size) // self._epoch_size
        for epoch in np.unique(epochs).tolist():
            is_whole = (epoch + 1) * self._epoch_size <= (batch.step + 1) * self._batch_size
            if epoch < self._epoch:  # measured before an interruption; the column is stored
                if is_whole:
                    self._writer.show_again(batch.step + 1)
                continue
            mine = epochs == epoch
            rows = batch.examples[mine]
            places = np.minimum(np.searchsorted(self._tracked, rows), len(self._tracked) - 1)
            is_tracked = self._tracked[places] == rows
            self._column[places[is_tracked]] = losses[mine][is_tracked]
            if is_whole:
                if np.isnan(self._column).any():
                    raise InputError(
                        f"{self._file} is gone, or older than the checkpoint that training went on from, and "
                        f"the losses in it are not measured again. {self._way_out}"
                    )
                how = f"epoch {epoch + 1} gave training losses of {len(self._column)} examples"
                self._writer.add(batch.step + 1, self._column, how)
                self._column, self._epoch = self._empty.copy(), epoch + 1

    def shown(self) -> Shown | None:
        return self._writer.shown()

    def before_checkpoint(self, step: int) -> None:
        if processes.is_writer():
            integrity.write_npz(self._file, {"epoch": np.array(self._epoch), "losses": self._column})

    @property
    def _way_out(self) -> str:
        return (
            f"To train again, remove {self._file.parent} and trajectories.zarr beside it, and run the same "
            "command."
        )

    def _restored(self) -> Float32[np.ndarray, "s"]:
        # Kept for a later checkpoint than the one that training goes on from, it has more losses in
        # it; they are written again, the same. Of an epoch that is done, nothing is needed.
        if self._file.exists():
            try:
                kept = integrity.read_npz(self._file)
            except InputError as error:
                raise InputError(f"{error} {self._way_out}") from error
            if int(kept["epoch"]) == self._epoch:
                return kept["losses"]
        return self._empty.copy()
