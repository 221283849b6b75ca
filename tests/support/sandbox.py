"""Pools of confined programs for tests, and one program that must leave nothing behind."""

import os
import pathlib

import pytest

from s2l_jax.evaluation.execution.programs import ProgramPool, ProgramResult
from s2l_jax.evaluation.sandbox import confine


def confined_pool(num_workers: int = 1) -> ProgramPool:
    """A pool, where this machine can confine programs."""
    if lack := confine.missing():
        pytest.skip(f"this machine cannot confine programs: {lack}")
    return ProgramPool(num_workers)


def run_one(pool: ProgramPool, code: str, timeout: float = 20.0) -> ProgramResult:
    """The result of one program; the pool is alive after it, and nothing is left of it."""
    (result,) = pool.run([code], timeout)
    (after,) = pool.run(["import os\nprint(6 * 7, os.listdir('.'))"], 20.0)
    assert after.ok, after
    assert after.stdout == "42 []\n"
    return result


def children(pid: int) -> list[int]:
    """Processes whose parent this one is."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = pathlib.Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1]
        except (OSError, IndexError):
            continue
        if int(parent) == pid:
            found.append(int(name))
    return found
