"""Orbax checkpoints: written while training goes on, verified, and passed over when broken."""

import contextlib
import functools
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jaxtyping import Array, Float32, UInt32

from s2l_jax import artifacts
from s2l_jax.console import quiet_libraries
from s2l_jax.parallel import processes
from s2l_jax.training.step import TrainState

_WAIT_FAILED = (
    20.0  # seconds that a run of several processes that has failed waits for the checkpoint under way
)


class Checkpoints:
    """A run's checkpoints, the newest `keep` retained; leaving the context waits for the last write.

    Attributes:
      losses: of each training step so far, which the loop adds; saved and restored with the state.
    """

    def __init__(self, path: epath.PathLike, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._path = epath.Path(path)
        self.losses: list[float] = []
        self._manager = ocp.CheckpointManager(self._path, options=options)
        self._pending: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self._finish()
            return
        # Of several processes the others may never write their part of it, where this one fails alone.
        finishing = threading.Thread(target=self._finish_quietly, daemon=True)
        finishing.start()
        finishing.join(_WAIT_FAILED if jax.process_count() > 1 else None)

    def _finish(self) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()

    def _finish_quietly(self) -> None:
        try:
            self._finish()
        except Exception as error:
            logging.error("%s", error)  # what already stops the run is the one to be seen

    def save(self, step: int, state: TrainState) -> None:
        """Start writing the state after `step` steps; raises OSError if the write before it failed."""
        self.wait()
        if step in self._manager.all_steps():
            return
        with quiet_libraries(), self._failing_as_oserror(step):
            losses = _replicated(np.array(self.losses, np.float32), state)
            checksums = _replicated(_checksums(state, losses), state)
            self._manager.save(step, args=ocp.args.StandardSave(_tree(state, losses, checksums)))
        self._pending = step

    def wait(self) -> None:
        """Wait for the write under way; raises OSError if it was not committed."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        with self._failing_as_oserror(pending):
            self._manager.wait_until_finished()
        self._manager.reload()
        if pending not in self._manager.all_steps():
            raise OSError(f"{self._path}: the checkpoint of step {pending} was not committed.")

    @contextlib.contextmanager
    def _failing_as_oserror(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore reports a full disk as a ValueError
            raise OSError(
                f"{self._path}: the checkpoint of step {step} could not be written ({_brief(error)})"
            ) from error

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest checkpoint that can be read, or None; broken ones are put aside, not deleted.

        Shapes, dtypes and shardings are those of `like`.
        """
        shape = functools.partial(jax.ShapeDtypeStruct, sharding=like.step.sharding)
        checksums = shape((len(jax.tree.leaves(like)) + 1,), jnp.uint32)
        for step in sorted(self._manager.all_steps(), reverse=True):
            args = ocp.args.StandardRestore(_tree(like, shape((step,), jnp.float32), checksums))
            try:
                with quiet_libraries():
                    tree = self._manager.restore(step, args=args)
                state = TrainState(tree["step"], tree["params"], tree["opt_state"])
                if not np.array_equal(tree["checksums"], _checksums(state, tree["losses"])):
                    raise ValueError("its arrays are not those that were written")
            except (PermissionError, ConnectionError, TimeoutError, MemoryError):
                raise  # the machine's fault, not the checkpoint's
            except Exception as error:  # whatever a damaged file makes Orbax raise
                if "RESOURCE_EXHAUSTED" in str(error):
                    raise
                broken = "%s: checkpoint %d cannot be read (%s); trying the one before it."
                logging.warning(broken, self._path, step, _brief(error))
                self._put_aside(step)
                continue
            self.losses[:] = np.asarray(tree["losses"]).tolist()
            return state
        return None

    def _put_aside(self, step: int) -> None:
        processes.barrier(f"broken checkpoint {step}")
        if processes.is_writer():
            aside = self._path.parent / "broken_checkpoints" / f"{step}-{uuid.uuid4().hex[:8]}"
            artifacts.move_folder(self._path / str(step), aside)
        processes.barrier(f"broken checkpoint {step} put aside")
        self._manager.reload()


def _tree(state: TrainState, losses: Any, checksums: Any) -> dict[str, Any]:
    arrays = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
    return arrays | {"losses": losses, "checksums": checksums}


def _replicated(array: np.ndarray, state: TrainState) -> jax.Array:
    return jax.make_array_from_callback(array.shape, state.step.sharding, lambda index: array[index])


def _checksums(state: TrainState, losses: Float32[Array, "s"]) -> UInt32[np.ndarray, "k"]:
    """The sum of each leaf's 32-bit words: Orbax does not notice bytes that changed in an array."""
    sums = np.asarray(jax.jit(_word_sums, out_shardings=state.step.sharding)(state))
    return np.append(sums, np.asarray(losses).view(np.uint32).sum(dtype=np.uint32))


def _word_sums(state: TrainState) -> jax.Array:
    words = (jax.lax.bitcast_convert_type(x, jnp.uint32) for x in jax.tree.leaves(state))
    return jnp.stack([word.sum(dtype=jnp.uint32) for word in words])


def _brief(error: Exception) -> str:
    # tensorstore says the cause last, after a long path and before a dump of its settings.
    text = (str(error).splitlines() or [""])[0].split(" [")[0]
    return f"{type(error).__name__}: {text if len(text) < 200 else f'{text[:60]} ... {text[-120:]}'}"
