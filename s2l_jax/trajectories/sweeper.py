"""The sweep as a hook: a column of losses at each step of the cadence."""

import time
from collections.abc import Collection
from typing import Any

import numpy as np
from jax.sharding import Mesh

from s2l_jax.console import duration
from s2l_jax.errors import DivergedError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import Params
from s2l_jax.training.hooks import Hook
from s2l_jax.trajectories.packed_dataset import PackedDataset
from s2l_jax.trajectories.sweep import make_sweep
from s2l_jax.trajectories.writer import TrajectoryWriter


class LossSweeper(Hook):
    """Measures the loss of every example of a dataset, as a column.

    Args:
      config: settings of the decoder.
      dataset: the tracked rows of the pool.
      mesh: the device mesh.
      writer: takes the columns; a step that it has is not swept again.
      dtype: of matrix products and activations.
      attention: see `parallel.attention.attention_on`.
      steps: the cadence, in finished training steps.
    """

    def __init__(
        self,
        config: DecoderConfig,
        dataset: PackedDataset,
        mesh: Mesh,
        writer: TrajectoryWriter,
        *,
        dtype: Any,
        attention: str = "auto",
        steps: Collection[int] = (),
    ):
        self._rows, self._writer, self._steps = dataset.indices, writer, frozenset(steps)
        self._sweep = make_sweep(config, dataset, mesh, dtype=dtype, attention=attention)

    def is_due(self, step: int) -> bool:
        """At the cadence."""
        return step in self._steps

    def at_cadence(self, step: int, params: Params) -> None:
        """The sweep after `step` training steps, unless it is there.

        Raises:
          DivergedError: a loss that is not finite.
        """
        if step in self._writer.steps:
            return
        start = time.monotonic()
        column = np.asarray(self._sweep(params))
        if not np.isfinite(column).all():
            bad = np.flatnonzero(~np.isfinite(column))
            raise DivergedError(
                f"the sweep at step {step} found {len(bad)} losses that are not finite; the first is pool "
                f"row {self._rows[bad[0]]}. Lower proxy.train.learning_rate, or use "
                "trajectories.dtype=float32."
            )
        seconds = duration(time.monotonic() - start)
        self._writer.add(step, column, f"swept {len(column)} examples in {seconds}")
