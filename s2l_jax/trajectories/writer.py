"""Columns as they are measured: each is stored, and handed to the running clustering."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float32, UInt64

from s2l_jax.console import say
from s2l_jax.parallel import processes
from s2l_jax.training.boards import Shown
from s2l_jax.trajectories.store import TrajectoryStore, Writers

if TYPE_CHECKING:
    from s2l_jax.clustering import StreamingKMeans


class TrajectoryWriter:
    """The columns of one run, in a store that all processes write together.

    Args:
      path: of the store; made if need be.
      ids: of the examples that columns are of.
      origin: the store's attributes.
      clusters: told the columns that the store holds already, and each that is added.

    Attributes:
      steps: training steps of the columns so far.

    Raises:
      InputError: a store of other examples, or of another origin.
    """

    def __init__(
        self,
        path: epath.Path,
        ids: UInt64[np.ndarray, "s"],
        origin: Mapping[str, Any],
        clusters: "StreamingKMeans",
    ):
        if processes.is_writer():
            TrajectoryStore.create(path, ids, origin)
        processes.barrier("trajectory store")
        writers = Writers(jax.process_index(), jax.process_count(), processes.barrier)
        self._store = TrajectoryStore(path, writers)
        self.clusters = clusters
        self.steps: list[int] = self._store.steps().tolist()
        self._unshown: tuple[int, Float32[np.ndarray, "s"]] | None = None
        processes.barrier("trajectory steps read")
        # A column the store lists is not measured again; replaying it leaves the same records.
        for place in range(len(self.steps)):
            clusters.update(self._store.column(place))

    def add(self, step: int, column: Float32[np.ndarray, "s"], how: str) -> None:
        """Store the losses measured after `step` training steps, and say `how`; every process takes part."""
        self._store.append(step, column)
        self.steps.append(step)
        self._unshown = step, column
        refresh = self.clusters.update(column)
        say(
            f"  step {step}: {how}, mean loss {column.mean():.3f}, clusters' agreement with the "
            f"last {refresh.adjusted_rand:.3f}"
        )

    def show_again(self, step: int) -> None:
        """Have the column of `step`, which is there, shown as if it had just been added."""
        self._unshown = step, self._store.column(self.steps.index(step))

    def shown(self) -> Shown | None:
        """What boards show of the newest column, once: losses, and how far clusters stayed as they were."""
        if self._unshown is None:
            return None
        (step, column), self._unshown = self._unshown, None
        place = self.steps.index(step)
        numbers = {"trajectories/mean_loss": float(column.mean())}
        if place:  # the first clustering has none before it
            numbers["trajectories/cluster_agreement"] = self.clusters.records[place].adjusted_rand
        return Shown(step, numbers, {"trajectories/losses": column})
