"""The device mesh: axes `data` (rows), `fsdp` (rows and weights) and `tensor` (weights)."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

from s2l_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")  # the axes that the rows of a batch are spread over


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A mesh over `devices`, or all of all processes; one axis may be -1, all that remain.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    sizes = [data, fsdp, tensor]
    chosen = jax.devices() if devices is None else devices
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and len(chosen) % known == 0:
        sizes[sizes.index(-1)] = len(chosen) // known
    if math.prod(sizes) != len(chosen) or -1 in sizes:
        raise InputError(
            f"mesh: data={data} x fsdp={fsdp} x tensor={tensor} does not fit this run's {len(chosen)} "
            "devices: they must multiply to that; one of them may be -1, which takes what remains."
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=chosen)


def row_groups(mesh: Mesh) -> int:
    """Into how many groups the rows of a batch are split: data x fsdp."""
    return mesh.shape["data"] * mesh.shape["fsdp"]
