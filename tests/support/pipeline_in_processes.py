"""One of several processes that run the small pipeline together; not a test itself.

python pipeline_in_processes.py RANK PORT COUNT DEVICES CHECKPOINT WORKDIR NAME [DYING LABEL]

NAME is of `CONFIGS`. The process DYING dies by SIGKILL at the first event whose name has LABEL: those of
`pipeline_kills`, and barriers. Only process 0 can read the pool's source; k-means is spread over all devices.
"""

import json
import os
import pathlib
import sys

from s2l_jax import artifacts
from s2l_jax.config import run
from tests.support.pipeline_kills import small_config


def config_of(name, checkpoint):
    """The same settings for any number of processes; rows of the task are written beside the checkpoint."""
    config = small_config(checkpoint)
    config.pool.limit = 48
    config.mesh.update(data=2, fsdp=2)
    config.proxy.train.steps = 6
    config.selection.budget = 16
    config.selection.queries = queries(pathlib.Path(checkpoint).parent)
    config.selection.gradients.update(
        rank=2, alpha=4.0, warmup_fraction=0.4, epochs=2, batch_size=8, dims=16, learning_rate=1e-2
    )
    config.evaluation.limit = 6
    config.target.train.steps = 4
    del config.selection.runs["random"]
    CONFIGS[name](config)
    return config


def _few(config):
    """Losses, hidden states and gradients, and a whole target on one selection."""
    config.selection.runs.semdedup = run(method="semdedup", train_target=False)
    config.selection.runs.less = run(method="less", train_target=False)


def _methods(config):
    """All that methods go by."""
    _few(config)
    config.pool.limit = 120
    runs = config.selection.runs
    runs.paper = run(method="s2l", stratify_by="none", train_target=False)
    runs.facility = run(method="facility_location", train_target=False)
    runs.evol = run(method="diverse_evol", initial=10, rounds=2, train_target=False)


def _adapters(config):
    """A target with LoRA, by the losses of training steps."""
    config.trajectories.source = "train"
    config.proxy.train.steps = 12  # two epochs
    config.target.lora.update(rank=2, dropout=0.1, export="adapter")
    config.target.train.learning_rate = 1e-2


def _saved(config):
    """A proxy whose weights are kept at each sweep."""
    config.proxy.save_params = True
    config.selection.runs.s2l.train_target = False
    config.evaluation.path = ""


def _swept(config):
    """The weights that `_saved` kept, swept again over a slice of the pool."""
    _saved(config)
    config.proxy.save_params = False
    config.trajectories.snapshots = str(snapshots_of(config.proxy.checkpoint))
    config.trajectories.slice_count = 40


CONFIGS = {"few": _few, "methods": _methods, "adapters": _adapters, "saved": _saved, "swept": _swept}


def snapshots_of(checkpoint):
    """Where `_swept` looks for the weights that a run of `_saved` kept."""
    return pathlib.Path(checkpoint).parent / "snapshots"


def queries(folder):
    """The name of a file with rows of the task, made if need be."""
    file = folder / "queries.jsonl"
    if not file.exists():
        rows = [
            {"instruction": f"What is {n} + {n}?", "output": f"The sum of {n} and {n} is {2 * n}."}
            for n in range(5)
        ]
        artifacts.write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def main():
    rank, port, count, devices, checkpoint, workdir, name, *death = sys.argv[1:]
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": count,
        "JAX_PROCESS_ID": rank,
    }
    import jax

    import launch
    from s2l_jax import stopping
    from s2l_jax.clustering import rows
    from s2l_jax.parallel import processes
    from s2l_jax.pipeline import run_pipeline
    from s2l_jax.pipeline.stages import pool
    from tests.support.pipeline_kills import die_at

    def on_another_disk(*_, **__):
        raise FileNotFoundError("the pool's file is on another disk")

    def run_it(argv):
        rows._ROWS_A_DEVICE = 1  # as for a pool of millions
        processes.start()
        stopping.listen()
        if death and death[0] == rank:
            die_at(death[1])
        if rank != "0":
            pool.read_rows = pool.data_identity = on_another_disk
        run_pipeline(config_of(name, checkpoint), workdir)

    jax.config.update("jax_disable_most_optimizations", True)
    launch.main = run_it
    sys.exit(launch._guarded([]))


if __name__ == "__main__":
    main()
