"""One of two processes of a run that were not started alike; not a test itself.

    python settings_in_processes.py RANK PORT WORKDIR

Prints nothing and ends with 0 if each run that differs is refused in this process, with the same words.
"""

import os
import re
import sys

import pytest


def main():
    rank, port, workdir = sys.argv[1:]
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": rank,
    }
    from s2l_jax.config import default, run
    from s2l_jax.errors import InputError
    from s2l_jax.parallel import agreement, processes
    from s2l_jax.pipeline import owner, run_pipeline

    processes.start()
    assert agreement.said_by_all(f"{'é' * int(rank)}") == ["", "é"]
    agreement.check_alike({"a": "1\n2", "b": "x"})

    def refused(change, words):
        config = default()
        config.selection.runs.s2l = run(method="s2l")
        stages = change(config) or ["pool"]
        with pytest.raises(InputError, match=re.escape(words)):
            run_pipeline(config, workdir, stages=stages)

    def learning_rate(config):
        config.proxy.train.learning_rate = 0.1 if rank == "1" else 0.2

    def how(config):
        config.trajectories.batch_tokens = 1024 + int(rank)

    def stages(config):
        return ["pool", "selection"][int(rank) :]

    def one_run_more(config):
        if rank == "1":
            config.selection.runs.more = run(method="random")

    refused(learning_rate, "proxy.train.learning_rate: 0.2 in process 0, 0.1 in process 1\nStart the same")
    refused(how, "trajectories.batch_tokens: 1024 in process 0, 1025 in process 1")
    refused(stages, "stages: pool, selection in process 0, selection in process 1")
    refused(one_run_more, "selection.runs.more.budget: absent in process 0, 0 in process 1")

    # What the process that writes cannot have, none of them has.
    taken = owner._Claim.__init__

    def in_use(claim, where):
        raise InputError("it is in use")

    owner._Claim.__init__ = in_use
    refused(lambda config: None, "it is in use")
    owner._Claim.__init__ = taken
    assert not os.path.exists(workdir)


if __name__ == "__main__":
    main()
