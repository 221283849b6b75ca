"""Rows on the devices are the same whoever provides them, and whether or not a process's groups adjoin."""

import jax
import numpy as np
import pytest

from s2l_jax.parallel.mesh import make_mesh
from tests.support.processes import run_together
from tests.support.rows_in_processes import MESHES, arrays_of

pytestmark = pytest.mark.long


def test_groups_that_do_not_adjoin_and_groups_that_processes_share(tmp_path):
    run_together("rows_in_processes.py", tmp_path, timeout=240)
    for name, (_, sizes) in MESHES.items():
        alone = arrays_of(make_mesh(*sizes, devices=jax.devices()[:4]))
        for rank in range(2):
            with np.load(tmp_path / f"{name}_{rank}.npz") as together:
                assert len(together.files) == len(alone)
                assert all(np.array_equal(together[f"arr_{n}"], mine) for n, mine in enumerate(alone))
