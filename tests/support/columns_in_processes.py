"""One of two processes that record trajectories and choose by them together; not a test itself.

    python columns_in_processes.py RANK PORT CHECKPOINT FOLDER

Under FOLDER: `swept` has sweeps over a slice with snapshots kept, `again` sweeps those snapshots, `train`
has the losses of training steps and k-means over all devices. Only process 0 can read the pool's source.
"""

import os
import sys

from tests.support.pipeline_kills import small_config

RUNS = ("swept", "again", "train")
CHUNK_ROWS = 10  # so that a column has chunks for both
ROWS_A_DEVICE = {"swept": 2**16, "again": 2**16, "train": 1}  # that k-means is spread over all devices for


def config_of(name, checkpoint, folder):
    """Three small proxies: the same settings for one process and for two."""
    config = small_config(checkpoint)
    config.pool.limit = 36
    config.mesh.update(data=2, fsdp=2)
    config.proxy.train.update(steps=6, accumulation=2)
    config.evaluation.path = ""
    config.selection.budget = 10
    del config.selection.runs["random"]
    config.selection.runs.s2l.train_target = False
    if name == "train":
        config.trajectories.source = "train"
        return config
    config.trajectories.slice_count = 25
    if name == "swept":
        config.proxy.save_params = True
        config.trajectories.stop_when_stable = 1  # not after the first sweep, but one process believes so
    else:
        config.trajectories.snapshots = f"{folder}/swept/proxy/snapshots"
    return config


def main():
    rank, port, checkpoint, folder = sys.argv[1:]
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": rank,
    }
    import jax

    from s2l_jax.clustering import rows
    from s2l_jax.clustering.streaming import Refresh, StreamingKMeans
    from s2l_jax.parallel import processes
    from s2l_jax.pipeline import run_pipeline
    from s2l_jax.pipeline.stages import pool
    from s2l_jax.trajectories import store

    def on_another_disk(*_, **__):
        raise FileNotFoundError("the pool's file is on another disk")

    def settled_at_once(clusters, column):
        clusters.records.append(Refresh(columns=2, inertia=0.0, adjusted_rand=2.0))
        return clusters.records[-1]

    jax.config.update("jax_disable_most_optimizations", True)
    processes.start()
    store._CHUNK_ROWS = CHUNK_ROWS
    if rank != "0":
        pool.read_rows = pool.data_identity = on_another_disk
    update = StreamingKMeans.update
    for name in RUNS:
        StreamingKMeans.update = settled_at_once if (name, rank) == ("swept", "1") else update
        rows._ROWS_A_DEVICE = ROWS_A_DEVICE[name]
        run_pipeline(config_of(name, checkpoint, folder), f"{folder}/{name}")


if __name__ == "__main__":
    main()
