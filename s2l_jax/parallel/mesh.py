"""The device mesh: axes `data` (rows), `fsdp` (rows and weights) and `tensor` (weights)."""

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
    count = len(chosen)
    if sizes.count(-1) > 1:
        raise InputError(f"mesh: at most one axis may be -1, got data={data} fsdp={fsdp} tensor={tensor}.")
    if -1 in sizes:
        known = -sizes[0] * sizes[1] * sizes[2]
        if count % known:
            raise InputError(
                f"mesh: {count} devices do not divide by {known} (data={data} fsdp={fsdp} tensor={tensor})."
            )
        sizes[sizes.index(-1)] = count // known
    if sizes[0] * sizes[1] * sizes[2] != count:
        raise InputError(
            f"mesh: data={data} x fsdp={fsdp} x tensor={tensor} needs "
            f"{sizes[0] * sizes[1] * sizes[2]} devices, this run has {count}; set mesh.data=-1 to "
            "take what remains."
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=chosen)


def row_groups(mesh: Mesh) -> int:
    """Into how many groups the rows of a batch are split: data x fsdp."""
    return mesh.shape["data"] * mesh.shape["fsdp"]
