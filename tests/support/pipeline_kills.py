"""Runs a small pipeline again and again, each time killed with SIGKILL at another point; not a test itself.

    python pipeline_kills.py WORKDIR CHECKPOINT LABEL [LABEL ...]

Every label is part of the name of an event (a file about to be written, a column about to be stored, a
checkpoint just begun, a barrier just reached); the run dies there. After the last label one run is left to
finish.
"""

import os
import signal
import sys

from s2l_jax import artifacts
from s2l_jax.config import default, run
from s2l_jax.parallel import processes
from s2l_jax.pipeline import run_pipeline
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.trajectories.store import TrajectoryStore


def small_config(checkpoint):
    config = default()
    config.pool.limit = 240
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 96
    config.proxy.checkpoint = config.target.checkpoint = checkpoint
    config.trajectories.every = 3
    config.clustering.num_clusters = 3
    config.selection.budget = 60
    config.evaluation.path = "synthetic"
    config.evaluation.limit = 12
    config.evaluation.max_new_tokens = 4
    for model, steps in ((config.proxy, 9), (config.target, 6)):
        model.train.update(steps=steps, batch_size=8, learning_rate=1e-3, dtype="float32", checkpoint_every=2)
    config.selection.runs.s2l = run(method="s2l")
    config.selection.runs.random = run(method="random")
    return config


def die_at(label):
    """Before each event, die if its name contains `label`."""

    def watch(name):
        if label in name:
            os.kill(os.getpid(), signal.SIGKILL)

    write, append, save = artifacts.write_bytes, TrajectoryStore.append, Checkpoints.save
    barrier = processes.barrier

    def watched_write(path, data):
        watch(f"write {path}")
        write(path, data)

    def watched_append(store, step, column):
        watch(f"column {step}")
        append(store, step, column)

    def watched_save(checkpoints, step, state):
        save(checkpoints, step, state)
        watch(f"checkpoint {checkpoints._path.parent.name} {step}")

    def watched_barrier(name):
        watch(f"barrier {name}")
        barrier(name)

    artifacts.write_bytes = watched_write
    processes.barrier = watched_barrier
    TrajectoryStore.append = watched_append
    Checkpoints.save = watched_save


def main():
    workdir, checkpoint, *labels = sys.argv[1:]
    for label in [*labels, ""]:
        child = os.fork()  # the parent never starts JAX's backend, so forking it is safe
        if not child:
            if label:
                die_at(label)
            run_pipeline(small_config(checkpoint), workdir, name="kills")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if killed != bool(label) or (not label and status):
            sys.exit(f"at {label!r}: status {status}")
        print(f"killed at {label}" if label else "finished", flush=True)


if __name__ == "__main__":
    main()
