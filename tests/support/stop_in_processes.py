"""One of two processes that train a proxy as launch.py would, until one stops; not a test itself.

python stop_in_processes.py RANK PORT CHECKPOINT WORKDIR HOW
"""

import errno
import os
import signal
import sys

from tests.support.pipeline_kills import small_config

STOPS_AT = 3  # the training step after whose numbers it stops, the first being 0


def config_of(checkpoint):
    """A proxy, its trajectories and a selection."""
    config = small_config(checkpoint)
    config.pool.limit = 36
    config.mesh.update(data=2, fsdp=2)
    config.evaluation.path = ""
    config.proxy.train.checkpoint_every = 100  # the only checkpoint is that of stopping
    config.selection.budget = 10
    del config.selection.runs["random"]
    config.selection.runs.s2l.train_target = False
    return config


def stop(how, workdir):
    """What happens to the second process at a step."""
    if how == "full":
        raise OSError(errno.ENOSPC, "No space left on device", f"{workdir}/trajectories.zarr")
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    rank, port, checkpoint, workdir, how = sys.argv[1:]
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": rank,
    }
    import jax

    import launch
    from s2l_jax import stopping
    from s2l_jax.parallel import processes
    from s2l_jax.pipeline import run_pipeline
    from s2l_jax.training import loop

    class Metrics(loop.Metrics):
        def after_step(self, finished):
            super().after_step(finished)
            if rank == "1" and finished.batch.step == STOPS_AT and how != "diverged":
                stop(how, workdir)

    def run(argv):
        processes.start()
        stopping.listen()
        loop.Metrics = Metrics
        config = config_of(checkpoint)
        if how == "diverged":
            config.proxy.train.learning_rate = 1e30
        run_pipeline(config, workdir)

    jax.config.update("jax_disable_most_optimizations", True)
    launch.main = run
    sys.exit(launch._guarded([]))


if __name__ == "__main__":
    main()
