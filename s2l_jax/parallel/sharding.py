"""Which mesh axis each array axis lies on."""

import functools
from collections.abc import Callable, Sequence
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


def groups_of(mesh: Mesh, process: int) -> tuple[int, ...]:
    """The row groups that devices of a process hold, in order; they need not adjoin.

    Where the `tensor` axis crosses processes, a group is held by each of them.
    """
    devices = mesh.devices.reshape(row_groups(mesh), -1)
    return tuple(i for i, group in enumerate(devices) if any(d.process_index == process for d in group))


def local_groups(mesh: Mesh) -> tuple[int, ...]:
    """The row groups whose data this process must provide."""
    return groups_of(mesh, jax.process_index())


def put_rows(mesh: Mesh, local: Any, axis: int) -> Any:
    """Global arrays from the rows of this process's groups, in the order of `local_groups`.

    `axis` is the row-group axis of every leaf.
    """
    groups = local_groups(mesh)

    def put(leaf: np.ndarray) -> jax.Array:
        shape = (*leaf.shape[:axis], row_groups(mesh), *leaf.shape[axis + 1 :])
        shard = functools.partial(group_rows, leaf, groups, axis)
        return jax.make_array_from_callback(shape, row_sharding(mesh, axis), shard)

    return jax.tree.map(put, local)


def group_rows(local: np.ndarray, groups: Sequence[int], axis: int, index: tuple[slice, ...]) -> np.ndarray:
    """One group's part of a global array.

    Args:
      local: the rows of some groups, as `put_rows` takes them.
      groups: which groups these are.
      axis: the row-group axis.
      index: of the part in the global array, as JAX gives it.
    """
    place = groups.index(index[axis].start or 0)
    return local[(*index[:axis], slice(place, place + 1), *index[axis + 1 :])]
