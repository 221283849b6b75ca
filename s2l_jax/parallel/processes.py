"""Runs of many processes: start, barriers, and who writes."""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from s2l_jax import console


def start() -> None:
    """Join the other processes when this one is part of a TPU pod, a Slurm job or an explicit group.

    An explicit group sets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. On a
    single machine nothing happens. Call it before anything asks JAX for its devices.
    """
    env = os.environ
    if "JAX_COORDINATOR_ADDRESS" in env:
        count, index = int(env["JAX_NUM_PROCESSES"]), int(env["JAX_PROCESS_ID"])
        jax.distributed.initialize(env["JAX_COORDINATOR_ADDRESS"], count, index)
    elif int(env.get("SLURM_NTASKS", 1)) > 1 or "," in env.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()
    else:
        return
    if not is_writer():
        console.mute()


def is_writer() -> bool:
    """Whether this process writes the shared artifacts: exactly one does."""
    return jax.process_index() == 0


def of_writer(decision: bool) -> bool:
    """The writer's decision, on every process."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(decision)))


def barrier(name: str) -> None:
    """Wait until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
