"""What may be done while a model trains: one `Hook` for each thing, handed to `train`."""

import dataclasses

import numpy as np
from jaxtyping import Float32

from s2l_jax.data.batching import Batch
from s2l_jax.models.parameters import Params
from s2l_jax.training.boards import Shown


@dataclasses.dataclass(frozen=True)
class FinishedStep:
    """The numbers of one optimiser step."""

    batch: Batch
    loss: float  # before the step, as all of these
    grad_norm: float  # before clipping
    learning_rate: float
    example_losses: Float32[np.ndarray, "b"] | None = None  # in the order of `batch.examples`, where needed


class Hook:
    """Something done while a model trains; each method does nothing unless a hook overrides it.

    Steps are counted as finished ones: 0 is before the first. In a run of several processes all of
    them call every method, at the same steps. After an interruption steps may come again.

    Attributes:
      needs_example_losses: whether `after_step` is to get the loss of each example.
    """

    needs_example_losses: bool = False

    def is_due(self, step: int) -> bool:
        """Whether `at_cadence` is to be called after `step` steps; the same in all processes."""
        return False

    def at_cadence(self, step: int, params: Params) -> None:
        """Look at the live parameters after `step` steps; they are the next step's to consume."""

    def after_step(self, finished: FinishedStep) -> None:
        """Take in a step's numbers, which are read while the next step runs or before `at_cadence`."""

    def shown(self) -> Shown | None:
        """What it has measured in the call before, for the boards (`boards.Board`); None for nothing."""
        return None

    def before_checkpoint(self, step: int) -> None:
        """Put on disk what a later run needs that goes on from the checkpoint of `step`."""

    def should_stop(self, step: int) -> bool:
        """Whether training is to end here, with a checkpoint; all processes must give the same answer.

        Asked before the first step of a run and after each one, after `at_cadence`.
        """
        return False

    def close(self) -> None:
        """Training has ended, or failed."""
