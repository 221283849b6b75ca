"""One of several processes of which one fails; not a test itself: RANK PORT WHO HOW COUNT."""

import os
import signal
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

from s2l_jax.parallel import control, processes


def main(rank: str, port: str, who: str, how: str, count: str) -> None:
    os.environ |= {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": rank,
    }  # fmt: skip
    control._GRACE_SECONDS = 0.5
    processes.start()
    processes.barrier("all are here")
    if rank == who and how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == who and how == "error":
        raise LookupError("no such row")
    if rank == who and how == "end":
        control.end("bad.jsonl: line 3 is not JSON", 2)
    processes.barrier("which the one that fails does not come to")


if __name__ == "__main__":
    main(*sys.argv[1:])
