"""One of two processes whose row groups do not adjoin, or are shared; not a test itself: RANK PORT OUT."""

import os
import sys

import jax
import numpy as np

from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.features.compute import example_gradients, pooled_states
from s2l_jax.gather import to_host
from s2l_jax.parallel import processes
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.sharding import local_groups, put_rows
from s2l_jax.trajectories.packed_dataset import PackedDataset

# By the numbers of the devices, of which a process has two.
MESHES = {"apart": ((0, 2, 3, 1), (4, 1, 1)), "shared": ((0, 2, 1, 3), (1, 2, 2))}
GROUPS = {("apart", 0): (0, 3), ("apart", 1): (1, 2), ("shared", 0): (0, 1), ("shared", 1): (0, 1)}


def arrays_of(mesh):
    """What is sent to the devices for sweeps, hidden states and gradients, whole on this host."""
    rng = np.random.default_rng(0)
    examples = TokenizedList(
        TokenizedExample(rng.integers(3, 400, n).astype(np.int32), int(n) // 2, False, False)
        for n in rng.integers(2, 60, 40)
    )
    everything = np.arange(40)
    tokens = examples.read(everything.tolist())
    # As private parts: the public ones run models on these.
    gradients = example_gradients.ExampleGradients.__new__(example_gradients.ExampleGradients)
    gradients._mesh, gradients._batch_tokens = mesh, 128
    put = [
        *PackedDataset(examples, everything, mesh, max_length=64, pinned_bytes=2**20).blocks(),
        *(put_rows(mesh, rows, axis=0) for rows, _ in pooled_states._batches(tokens, 64, 2, mesh, "mean")),
        *(put_rows(mesh, rows, axis=0) for _, rows in gradients._rows(examples, everything)),
    ]
    return [to_host(leaf) for leaf in jax.tree.leaves(put)]


def main(rank: str, port: str, out: str) -> None:
    os.environ |= {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": rank,
    }  # fmt: skip
    processes.start()
    for name, (order, sizes) in MESHES.items():
        mesh = make_mesh(*sizes, devices=[jax.devices()[n] for n in order])
        assert local_groups(mesh) == GROUPS[name, int(rank)], local_groups(mesh)
        np.savez(f"{out}/{name}_{rank}.npz", *arrays_of(mesh))


if __name__ == "__main__":
    main(*sys.argv[1:])
