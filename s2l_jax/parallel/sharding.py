"""Which mesh axis each array axis lies on."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from s2l_jax.parallel.mesh import ROW_AXES, row_groups

# Logical axis of a parameter -> mesh axis.
RULES: dict[str, str | None] = {
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}


def parameter_sharding(mesh: Mesh, axes: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of a parameter; an axis that does not divide evenly stays whole."""
    spec = []
    for axis, size in zip(axes, shape, strict=True):
        mesh_axis = RULES[axis] if axis is not None else None
        spec.append(mesh_axis if mesh_axis and size % mesh.shape[mesh_axis] == 0 else None)
    return NamedSharding(mesh, P(*spec))


def vocabulary_shards(mesh: Mesh, vocab_size: int) -> int:
    """Devices that the vocabulary of a head or an embedding is spread over."""
    return vocab_size // parameter_sharding(mesh, ("vocab",), (vocab_size,)).shard_shape((vocab_size,))[0]


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def row_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Array axis `axis` is spread over the mesh's row axes, the others are whole."""
    return NamedSharding(mesh, P(*(None,) * axis, ROW_AXES))


def row_constraint(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """A function that pins the leading axis of activations to the row axes inside jit."""
    return lambda x: jax.lax.with_sharding_constraint(x, row_sharding(mesh))


def local_groups(mesh: Mesh) -> range:
    """The row groups whose data this process must provide."""
    devices = mesh.devices.reshape(-1, mesh.shape["tensor"])
    here = jax.process_index()
    mine = [i for i, group in enumerate(devices) if any(device.process_index == here for device in group)]
    if len(mine) != mine[-1] - mine[0] + 1:
        raise NotImplementedError(f"this process owns the row groups {mine}, which do not adjoin")
    return range(mine[0], mine[-1] + 1)


def put_rows(mesh: Mesh, local: Any, axis: int) -> Any:
    """Global arrays from this process's rows; `axis` is the row-group axis of every leaf."""

    def put(leaf: np.ndarray) -> jax.Array:
        shape = (*leaf.shape[:axis], row_groups(mesh), *leaf.shape[axis + 1 :])
        return jax.make_array_from_process_local_data(row_sharding(mesh, axis), leaf, shape)

    return jax.tree.map(put, local)
