"""Loss trajectories, as a feature of selection methods."""

from typing import Any, ClassVar

from etils import epath
from ml_collections import ConfigDict

from s2l_jax.features.arrays import counts, numbers
from s2l_jax.features.feature import FEATURES, Feature, SelectionContext


class TrajectoryFeature(Feature):
    """The losses at the checkpoints, however they came about: of the pool, or of the slice tracked."""

    arrays: ClassVar = {"trajectories": numbers("n t"), "trajectory_steps": counts("t")}
    source = "run the trajectories stage, or pass the losses as an [N, T] array"
    needs_pool = False

    def goes_by(self, config: ConfigDict, other: ConfigDict, options: dict[str, Any]) -> bool:
        return True

    def by_proxy(self, config: ConfigDict, options: dict[str, Any]) -> bool:
        return True

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        return {} if context.trajectories is None else {"trajectories.sha256": context.trajectories.digest}

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        found = context.trajectories
        return {} if found is None else {"trajectories": found.losses, "trajectory_steps": found.steps}


FEATURES.enter("trajectories", TrajectoryFeature())
