"""Runs a program of tests/support as several processes of one JAX run."""

import os
import socket
import subprocess
import sys

from tests.support.paths import REPOSITORY, SUPPORT


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def end_together(
    program: str, *arguments: object, count: int = 2, timeout: float = 400
) -> list[tuple[int, str]]:
    """Start `program RANK PORT ARGUMENTS...` for each rank, wait for all; their exit statuses and outputs.

    PORT is free; `timeout` is in seconds. No process outlives the call.
    """
    port = free_port()
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
    return [(process.returncode, output) for process, output in zip(running, outputs, strict=True)]


def run_together(program: str, *arguments: object, count: int = 2, timeout: float = 400) -> None:
    """`end_together` for processes that are to succeed; fails if one does not."""
    ended = end_together(program, *arguments, count=count, timeout=timeout)
    assert [status for status, _ in ended] == [0] * count, [output for _, output in ended]
