"""How fast the devices of a group send to each other, by the links between them."""

from collections.abc import Sequence

import numpy as np

from s2l_jax.forecast.topology import Topology


def rate(topology: Topology, group: Sequence[object]) -> float:
    """Bytes/s that each device of a group sends at most, in rings over all links between them.

    On a TPU slice a group uses the axes of the network that it extends over: both links of an axis that is a
    ring and is covered whole, of any other one link, as its ends have no more. That groups which interleave
    share links is not counted.
    """
    chip = topology.chip
    if len({getattr(device, "slice_index", 0) or 0 for device in group}) > 1:
        return chip.between
    if topology.platform != "tpu":
        return chip.link
    shape = _extents(topology.devices)
    links = 0
    for extent, size, is_ring in zip(_extents(group), shape, _rings(shape), strict=True):
        if extent > 1:
            links += 2 if is_ring and extent == size else 1
    return links * chip.link


def _extents(devices: Sequence[object]) -> list[int]:
    """Over how many places of each axis of the network devices extend."""
    places = np.array([getattr(device, "coords") for device in devices])  # noqa: B009, of described devices
    return [len(set(axis)) for axis in places.T.tolist()]


def _rings(shape: Sequence[int]) -> list[bool]:
    """Which axes of a slice end where they begin: of two those of 16 chips; of three all, of whole cubes."""
    if shape[-1] == 1:
        return [size == 16 for size in shape]
    return [all(size % 4 == 0 for size in shape)] * len(shape)
