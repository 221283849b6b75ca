"""One of several processes that run the small pipeline together; not a test itself.

python pipeline_in_processes.py RANK PORT COUNT DEVICES CHECKPOINT WORKDIR NAME [LABEL]

NAME is of `CONFIGS`. With LABEL the last process dies by SIGKILL at the first event whose name has it, as in
`pipeline_kills`. k-means is spread over all devices.
"""

import json
import os
import pathlib
import sys

from s2l_jax.config import run
from tests.support.pipeline_kills import small_config

ROWS = 120


def config_of(name, checkpoint, folder):
    """The same settings for any number of processes; `folder` holds the queries."""
    config = small_config(checkpoint)
    config.pool.limit = ROWS
    config.mesh.update(data=2, fsdp=2)
    config.selection.budget = 40
    config.evaluation.limit = 6
    config.target.train.steps = 4
    for entry in config.selection.runs.values():
        entry.train_target = False
    CONFIGS[name](config, folder)
    return config


def _every_method(config, folder):
    """Selections by all that methods go by; a whole target on one."""
    config.selection.queries = f"{queries(folder)}"
    config.selection.gradients.update(
        rank=2, alpha=4.0, warmup_fraction=0.2, epochs=2, batch_size=8, dims=16, learning_rate=1e-2
    )
    runs = config.selection.runs
    runs.s2l.train_target = True
    runs.paper = run(method="s2l", stratify_by="none", train_target=False)
    runs.facility = run(method="facility_location", train_target=False)
    runs.semdedup = run(method="semdedup", train_target=False)
    runs.less = run(method="less", train_target=False)
    runs.evol = run(method="diverse_evol", initial=10, rounds=2, train_target=False)


def _adapters(config, folder):
    """A target with LoRA, by the losses of training steps."""
    config.trajectories.source = "train"
    config.proxy.train.steps = 2 * ROWS // config.proxy.train.batch_size
    config.target.lora.update(rank=2, dropout=0.1, export="adapter")
    config.target.train.learning_rate = 1e-2
    del config.selection.runs["random"]
    config.selection.runs.s2l.train_target = True


CONFIGS = {"methods": _every_method, "adapters": _adapters}


def queries(folder):
    """A file of rows of the task, made if need be."""
    file = pathlib.Path(folder) / "queries.jsonl"
    if not file.exists():
        rows = [
            {"instruction": f"What is {n} + {n}?", "output": f"The sum of {n} and {n} is {2 * n}."}
            for n in range(5)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def main():
    rank, port, count, devices, checkpoint, workdir, name, *label = sys.argv[1:]
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
    from tests.support.pipeline_kills import die_at

    def run_it(argv):
        rows._ROWS_A_DEVICE = 1  # as for a pool of millions
        processes.start()
        stopping.listen()
        if label and int(rank) == int(count) - 1:
            die_at(label[0])
        run_pipeline(config_of(name, checkpoint, pathlib.Path(workdir).parent), workdir)

    jax.config.update("jax_disable_most_optimizations", True)
    launch.main = run_it
    sys.exit(launch._guarded([]))


if __name__ == "__main__":
    main()
