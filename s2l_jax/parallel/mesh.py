"""The device mesh: axes `data` (rows), `fsdp` (rows and weights) and `tensor` (weights)."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from s2l_jax.console import say
from s2l_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")  # from the one that sends least to the one that sends most
ROW_AXES = ("data", "fsdp")  # the axes that the rows of a batch are spread over


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A mesh over `devices`, or all of all processes; one axis may be -1, all that remain.

    Devices that are neighbours in the network are neighbours on the axes, `tensor` first. Of several
    slices (parts of the network with fast links inside) `data` is split over them, and `fsdp` and
    then `tensor` only as far as `data` does not divide.

    Raises:
      InputError: the sizes do not multiply to the number of devices, or slices differ in size.
    """
    chosen = list(jax.devices() if devices is None else devices)
    sizes = _sizes([data, fsdp, tensor], len(chosen))
    return Mesh(_arranged(sizes, chosen), AXES, axis_types=(AxisType.Auto,) * 3)


def row_groups(mesh: Mesh) -> int:
    """Into how many groups the rows of a batch are split: data x fsdp."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _sizes(asked: list[int], num_devices: int) -> list[int]:
    fixed = math.prod(size for size in asked if size != -1)
    text = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, asked, strict=True))
    if asked.count(-1) > 1:
        raise InputError(f"mesh: {text}: one of them may be -1, which takes what the others leave.")
    if fixed < 1 or num_devices % fixed or (-1 not in asked and fixed != num_devices):
        unfit = [n for n, size in enumerate(asked) if size != -1 and (size < 1 or num_devices % size)]
        why = f" ({', '.join(AXES[n] for n in unfit)} alone does not)" if unfit else ""
        raise InputError(
            f"mesh: {text} does not fit this run's {num_devices} devices{why}: they must multiply to that; "
            "one of them may be -1, which takes what remains."
        )
    return [num_devices // fixed if size == -1 else size for size in asked]


def _arranged(sizes: list[int], devices: list[jax.Device]) -> np.ndarray:
    """The devices [data, fsdp, tensor] by their places in the network."""
    # Devices that know no slices, such as those of a described topology, are of one.
    of_slice = [getattr(device, "slice_index", 0) or 0 for device in devices]
    slices = sorted(set(of_slice))
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    counts = [of_slice.count(number) for number in slices]
    if len(set(counts)) > 1:
        raise InputError(f"mesh: this run's slices have {counts} devices; they must be of one size.")
    across, left = [], len(slices)
    for size in sizes:
        across.append(math.gcd(size, left))
        left //= across[-1]
    if slow := [axis for axis, parts in zip(AXES[1:], across[1:], strict=True) if parts > 1]:
        say(
            f"mesh: {' and '.join(slow)} crosses the {len(slices)} slices, whose network is slower than "
            f"that inside one; a mesh.data that {len(slices)} divides keeps it inside"
        )
    inside = [size // parts for size, parts in zip(sizes, across, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
