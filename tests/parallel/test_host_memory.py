"""Memory that is freed is used again, so that large arrays cost no page faults the second time."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import numpy as np
from s2l_jax.parallel.host_memory import keep_freed_memory
if "keep" in sys.argv and not keep_freed_memory():
    print(-1)
    sys.exit()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.full(2**26, 1, np.int8)  # above what malloc learns to keep
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def page_faults(*args):
    run = subprocess.run([sys.executable, "-c", _PROGRAM, *args], capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_large_arrays_come_from_memory_that_was_freed():
    kept = page_faults("keep")
    if kept < 0:
        pytest.skip("this C library has no mallopt")
    assert kept < 100 < page_faults()
