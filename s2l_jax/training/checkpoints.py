"""Orbax checkpoints: written while training goes on, verified, and passed over when broken."""

import contextlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from s2l_jax.console import quiet_libraries
from s2l_jax.training.step import TrainState


class Checkpoints:
    """The checkpoints of one training run, newest `keep` retained.

    Use it as a context manager: leaving waits for the last write.
    """

    def __init__(self, path: epath.PathLike, keep: int):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=True
        )
        self._path = epath.Path(path)
        self._manager = ocp.CheckpointManager(self._path, options=options)
        self._pending: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._manager.close)
            self.wait()

    def save(self, step: int, state: TrainState) -> None:
        """Start writing the state after `step` steps; the write before it is waited for and checked.

        Raises:
          OSError: the write before this one failed (a full disk, say).
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        with quiet_libraries():
            self._manager.save(step, args=ocp.args.StandardSave(_tree(state)))
        self._pending = step

    def wait(self) -> None:
        """Wait for the write under way and check that it was committed.

        Raises:
          OSError: it was not.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self._manager.wait_until_finished()
        self._manager.reload()
        if pending not in self._manager.all_steps():
            raise OSError(f"{self._path}: the checkpoint of step {pending} was not committed.")

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest checkpoint that can be read, or None; broken ones are removed.

        Args:
          like: shapes, dtypes and shardings of the state.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                with quiet_libraries():
                    tree = self._manager.restore(step, args=ocp.args.StandardRestore(_tree(like)))
            except Exception as error:  # whatever a damaged file makes Orbax raise
                logging.warning(
                    "%s: checkpoint %d cannot be read (%s: %s); trying the one before it.",
                    self._path,
                    step,
                    type(error).__name__,
                    (str(error).splitlines() or [""])[0][:200],
                )
                self._manager.delete(step)
                continue
            return TrainState(tree["step"], tree["params"], tree["opt_state"])
        return None


def abstract(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def _tree(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state}
