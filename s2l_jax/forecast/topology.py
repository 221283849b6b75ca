"""Devices by the name of their topology: `v5e:4x4`, two slices of them `2xv5e:4x4`, `cpu:8`, `gpu:h100x8`."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from s2l_jax.errors import InputError
from s2l_jax.parallel.chips import CHIPS, Chip
from s2l_jax.training.flops import peak_flops

_GPUS_A_MACHINE = 8
_TPUS = [name for name in CHIPS if re.fullmatch(r"v\d\w", name) or name == "v4"]
_GPUS = [name for name in CHIPS if name not in _TPUS]
_CAPABILITY = {"a100": "8.0", "l4": "8.9"}  # of the others 9.0
_KNOWN = (
    "v5e:AxB and v6e:AxB (2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16), v4:AxBxC and v5p:AxBxC (2x2x1, 2x2x2, "
    "2x2x4, 2x4x4, 4x4x4, ...), several slices as 2xv5e:4x4, cpu:N, and gpu:KINDxN with a KIND of "
    + ", ".join(_GPUS)
)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices that programs can be made for, whether they are here or not.

    Attributes:
      name: as the user gave it.
      platform: "cpu", "gpu" or "tpu".
      chip: what one device can do.
      devices: for a mesh.
      compiles: whether programs can be compiled for them here.
    """

    name: str
    platform: str
    chip: Chip
    devices: Sequence[Any]
    compiles: bool


@dataclasses.dataclass(frozen=True)
class _Gpu:
    """A GPU that is not here, for shardings alone."""

    id: int
    slice_index: int
    compute_capability: str
    process_index: int = 0
    platform: str = "gpu"
    device_kind: str = ""


def describe(name: str) -> Topology:
    """The devices of a topology.

    Raises:
      InputError: an unknown name, libtpu missing, or a shape that it does not know.
    """
    if found := re.fullmatch(r"(?:(\d+)x)?(\w+):(\d+(?:x\d+){1,2})", name):
        slices, chip, shape = int(found[1] or 1), found[2], found[3]
        if chip in _TPUS and slices:
            return Topology(name, "tpu", CHIPS[chip], _tpus(name, f"{chip}:{shape}", slices), compiles=True)
    elif (found := re.fullmatch(r"cpu:(\d+)", name)) and int(found[1]):
        devices = _cpus(int(found[1]))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)
        unknown = float("inf")
        chip = Chip((), peak_flops() / len(devices), memory, unknown, unknown, unknown)
        return Topology(name, "cpu", chip, devices, compiles=True)
    elif (found := re.fullmatch(r"gpu:(\w+?)x(\d+)", name)) and found[1] in _GPUS and int(found[2]):
        capability = _CAPABILITY.get(found[1], "9.0")
        gpus = [_Gpu(n, n // _GPUS_A_MACHINE, capability) for n in range(int(found[2]))]
        return Topology(name, "gpu", CHIPS[found[1]], gpus, compiles=False)
    raise InputError(f"--plan={name}: no such topology; there are {_KNOWN}.")


def _cpus(count: int) -> list[jax.Device]:
    # Not where JAX has looked for its devices already, or where XLA_FLAGS says how many there are.
    with contextlib.suppress(RuntimeError, ValueError):
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise InputError(
            f"--plan=cpu:{count}: this process has {len(devices)} host devices; unset XLA_FLAGS, or set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}."
        )
    return devices[:count]


def _tpus(name: str, shape: str, slices: int) -> Sequence[Any]:
    # Nothing is to be asked of a metadata server or of chips: there are none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")  # whatever it is: unset, libtpu complains
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--plan={name}: libtpu, which compiles for TPUs, is not installed: pip install 'libtpu>=0.0.52' "
            "(some 500 MB; it needs no TPU)."
        ) from error
    from jax.experimental import topologies

    options = {"num_slices": slices} if slices > 1 else {}
    try:
        return topologies.get_topology_desc(shape, platform="tpu", **options).devices
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"--plan={name}: libtpu knows no such slice ({said}); there are {_KNOWN}."
        ) from error
