"""Loss trajectories, as a feature of selection methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from etils import epath

from s2l_jax.features.arrays import numbers
from s2l_jax.features.feature import FEATURES, Feature

if TYPE_CHECKING:
    from s2l_jax.features.context import SelectionContext


class TrajectoryFeature(Feature):
    """The losses at the checkpoints: of the pool, or of the slice that was tracked."""

    arrays: ClassVar = {"trajectories": numbers("n t")}
    source = "run the trajectories stage, or pass the losses as an [N, T] array"
    needs_pool = False

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        """The losses themselves, however they came about."""
        return {} if context.trajectories is None else {"trajectories.sha256": context.trajectories.digest}

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        """Those that the run has."""
        return {} if context.trajectories is None else {"trajectories": context.trajectories.losses}


FEATURES.enter("trajectories", TrajectoryFeature())
