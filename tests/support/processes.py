"""Runs a program of tests/support as several processes of one JAX run."""

import os
import socket
import subprocess
import sys

from tests.support.paths import REPOSITORY, SUPPORT


def run_together(program: str, *arguments: object, count: int = 2, timeout: float = 400) -> None:
    """Start `program RANK PORT ARGUMENTS...` for each rank, wait for all, and fail if one does.

    PORT is free; `timeout` is in seconds. No process outlives the call.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [
        subprocess.Popen(
            [sys.executable, str(SUPPORT / program), str(rank), str(port), *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0].decode() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * count, outputs
