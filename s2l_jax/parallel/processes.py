"""Runs of many processes: start, barriers, and who writes."""

import os
import socket

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int64

from s2l_jax import console, stopping
from s2l_jax.parallel import control
from s2l_jax.parallel.clusters import WAIT_SECONDS, find_group

# JAX's own watch, for what the control channel does not see: a process that hangs while its machine answers.
_HEARTBEAT_SECONDS = 50


def start(mode: str = "auto", wait_seconds: float = WAIT_SECONDS) -> None:
    """Join the other processes of this run, if there are any; say what was joined and who this process is.

    Call it before anything asks JAX for its devices.

    Args:
      mode: "auto", "on" or "off"; see `clusters.find_group`.
      wait_seconds: how long the others are waited for.

    Raises:
      InputError: a group that is described wrongly, or whose address is another's.
      TimeoutError: not all came in time; the message says how many did.
    """
    group = find_group(mode)
    if group is None:
        return
    console.say(
        f"process {group.index} of {group.count} ({group.found_by}), {socket.gethostname()}; process 0 is at "
        f"{group.address}; waiting up to {console.duration(wait_seconds)} for the others"
    )
    control.join(group, wait_seconds)
    jax.distributed.initialize(
        group.address,
        group.count,
        group.index,
        local_device_ids=None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else group.local_device_ids,
        cluster_detection_method="deactivate",  # which would give a task that has a node alone one GPU of it
        initialization_timeout=round(wait_seconds),
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
    console.say(f"process {group.index}: all {group.count} processes are here")
    if not is_writer():
        console.mute()


def is_writer() -> bool:
    """Whether this process writes the shared artifacts: exactly one does."""
    return jax.process_index() == 0


def of_writer(decision: bool) -> bool:
    """The writer's decision, on every process."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(decision)))


def rows_of_writer(rows: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
    """The writer's row numbers, on every process; all have as many, and fewer than 2^31 rows to number."""
    return np.asarray(multihost_utils.broadcast_one_to_all(rows.astype(np.int32)), np.int64)


def told_to_stop() -> bool:
    """Whether training stops here, as a signal came to this process or another; all call it after each step.

    JAX's own `reached_preemption_sync_point` is not used: it takes SIGTERM alone, and from Python's handlers;
    and the steps that it counts are those of one training run, and are Orbax's as well.
    """
    if jax.process_count() == 1:
        return bool(stopping.told())
    if stopping.told():
        control.ask_to_stop(stopping.told())
    if signal := control.stopped_by():
        stopping.take(signal)
    return bool(signal)


def barrier(name: str) -> None:
    """Wait until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
