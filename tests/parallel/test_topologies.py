"""Meshes over TPU slices that are not here, as libtpu describes them: who provides which rows."""

import importlib.util
import itertools
import math
import re

import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh

from s2l_jax.parallel.mesh import make_mesh, row_groups
from s2l_jax.parallel.sharding import group_rows, groups_of, row_sharding

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu describes the slices; it is large, so only CI installs it: pip install --group topologies",
)

SHAPES = {
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}
SLICES = [(f"{kind}:{shape}", 1) for kind, shapes in SHAPES.items() for shape in shapes] + [("v5e:4x4", 2)]
MESHES = [(-1, 1, 1), (1, -1, 1), (-1, 4, 1), (-1, 1, 2), (-1, 4, 2), (1, -1, 4)]
WALK = [
    (topology, num_slices, sizes)
    for (topology, num_slices), sizes in itertools.product(SLICES, MESHES)
    if math.prod(map(int, re.findall(r"(?<=[:x])\d+", topology))) % math.prod(sizes)
    == 0  # four chips are not eight
]


def mesh_of(topology: str, num_slices: int, sizes: tuple[int, int, int]) -> Mesh:
    described = {"num_slices": num_slices} if num_slices > 1 else {}
    return make_mesh(
        *sizes, devices=topologies.get_topology_desc(topology, platform="tpu", **described).devices
    )


def held_groups(mesh: Mesh) -> dict[int, tuple[int, ...]]:
    return {process: groups_of(mesh, process) for process in {d.process_index for d in mesh.devices.flat}}


@pytest.mark.parametrize(("topology", "num_slices", "sizes"), WALK, ids=str)
def test_every_row_arrives_once_from_whoever_holds_its_group(topology, num_slices, sizes):
    mesh = mesh_of(topology, num_slices, sizes)
    assert len(set(mesh.devices.flat)) == math.prod(mesh.shape.values())
    held = held_groups(mesh)
    by_group = mesh.devices.reshape(row_groups(mesh), -1)
    for process, groups in held.items():
        assert groups == tuple(n for n, g in enumerate(by_group) if process in {d.process_index for d in g})

    # A batch [microbatch, group, row]: a process has the rows of its groups, a device takes its part of them.
    batch = np.arange(2 * row_groups(mesh) * 3).reshape(2, -1, 3)
    local = {process: batch[:, list(groups)] for process, groups in held.items()}
    arrived = np.zeros(batch.shape, int)
    for device, index in row_sharding(mesh, axis=1).devices_indices_map(batch.shape).items():
        process = device.process_index
        shard = group_rows(local[process], held[process], 1, index)
        assert np.array_equal(shard, batch[index])
        arrived[index] += 1
    assert (arrived == mesh.shape["tensor"]).all()


def test_some_processes_hold_groups_that_do_not_adjoin():
    """What the walk is for: rings over a slice come back to a host."""
    groups = held_groups(mesh_of("v5e:4x4", 1, (-1, 1, 1)))
    assert any(max(mine) - min(mine) >= len(mine) for mine in groups.values())


def test_some_groups_are_provided_by_several_processes():
    groups = held_groups(mesh_of("v5e:4x4", 1, (1, -1, 4)))
    assert sum(map(len, groups.values())) > 4


@pytest.mark.parametrize(
    ("sizes", "crossing"),
    [((-1, 1, 1), ["data"]), ((-1, 4, 2), ["data"]), ((2, -1, 4), ["data"]), ((1, -1, 4), ["fsdp"])],
    ids=str,
)
def test_of_several_slices_data_crosses_and_fsdp_only_where_data_cannot(sizes, crossing, capsys):
    mesh = mesh_of("v5e:4x4", 2, sizes)
    of_slice = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert [a for n, a in enumerate(mesh.axis_names) if np.diff(of_slice, axis=n).any()] == crossing
    assert ("fsdp crosses the 2 slices" in capsys.readouterr().err) == (crossing == ["fsdp"])


def test_neighbours_on_the_tensor_axis_are_neighbours_in_the_network():
    """Weights' partial sums go over it in every layer."""
    for topology in ("v5e:8x8", "v5p:4x4x4"):
        mesh = mesh_of(topology, 1, (-1, 1, 2))
        coordinates = np.array([device.coords for device in mesh.devices.flat]).reshape(-1, 2, 3)
        assert (abs(np.diff(coordinates, axis=1)).sum(axis=(1, 2)) == 1).all()
