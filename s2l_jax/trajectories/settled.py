"""Ends training, and the sweeps with it, once the clusters have settled."""

from s2l_jax.parallel import processes
from s2l_jax.training.hooks import Hook
from s2l_jax.trajectories.writer import TrajectoryWriter


class StopWhenSettled(Hook):
    """Stops after `times` columns in a row that hardly changed the clusters.

    That is when each refresh agrees with the one before by an adjusted Rand index of at least `above`.
    """

    def __init__(self, writer: TrajectoryWriter, times: int, above: float):
        self._writer, self._times, self._above = writer, times, above

    def should_stop(self, step: int) -> bool:
        steps = self._writer.steps
        if step not in steps:
            return False
        last = self._writer.clusters.records[: steps.index(step) + 1][-self._times :]
        # The first column has none to agree with.
        stable = all(r.columns > 1 and r.adjusted_rand >= self._above for r in last)
        return processes.of_writer(len(last) == self._times and stable)
