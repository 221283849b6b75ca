"""What a job takes on a topology: memory, the three times that bound it, and a projection from them."""

import dataclasses
import math
from collections.abc import Mapping

from jax.sharding import Mesh

from s2l_jax.forecast.compiling import Compiled
from s2l_jax.forecast.jobs import Job
from s2l_jax.forecast.programs import bytes_a_device
from s2l_jax.forecast.topology import Topology

# Of what a data sheet promises, the share that projections count on: assumed, nothing was measured.
ATTAINED = {"compute": 0.4, "memory": 0.7, "network": 0.7}
# What a product in full float32 costs beside one in bfloat16 (TPUs: six of those; GPUs: no tensor cores).
_FLOAT32 = {"tpu": 6.0, "gpu": 15.0, "cpu": 1.0}
_USABLE = 15.75 / 16  # the share of a TPU's memory that its compiler gives to programs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A job on a mesh.

    Attributes:
      held: bytes of a device while it runs, by what they are; temporaries among them where it was compiled.
      available: bytes that a device has.
      seconds: of each time at the data sheet's rates, by what would bound it: "compute", "memory", "network".
    """

    job: Job
    held: Mapping[str, float]
    available: float
    compiled: Compiled | None
    seconds: Mapping[str, float]

    @property
    def peak(self) -> float:
        """Bytes that a device holds at once."""
        return sum(self.held.values())

    @property
    def fits(self) -> bool:
        """Whether it does not need more than a device has."""
        return self.peak <= self.available

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.seconds, key=lambda kind: self.seconds[kind] / ATTAINED[kind])

    @property
    def projected(self) -> float:
        """Seconds of each time, if the shares `ATTAINED` are."""
        return max(seconds / ATTAINED[kind] for kind, seconds in self.seconds.items())

    @property
    def total(self) -> float:
        """Projected seconds in the run."""
        return self.job.runs * self.projected

    @property
    def sent(self) -> dict[str, tuple[float, float]]:
        """By kind of collective, how often each time, and the bytes that a device sends."""
        found: dict[str, tuple[float, float]] = {}
        for each in self.compiled.sent if self.compiled else ():
            times, sent = found.get(each.kind, (0.0, 0.0))
            repeats = self.job.repeats
            found[each.kind] = times + each.times * repeats, sent + each.sent * repeats
        return found


def outcome(job: Job, topology: Topology, mesh: Mesh, compiled: Compiled | None) -> Outcome:
    """What a job takes; without a compiled program its temporaries and what it sends are not known."""
    chip = topology.chip
    held = {name: float(bytes_a_device(each)) for name, each in job.program.arguments(mesh).items()}
    held |= job.beside
    if compiled is not None:
        held["temporaries"] = compiled.temporaries
    slow = _FLOAT32[topology.platform] if job.dtype == "float32" else 1.0
    devices = 1 if job.one_device else mesh.size
    seconds = {
        "compute": job.flops * job.executed * slow / (devices * chip.flops),
        "memory": job.traffic / chip.bandwidth,
    }
    if compiled is not None:
        seconds["network"] = job.repeats * math.fsum(
            each.sent / (chip.links if _is_within(mesh, each.group) else chip.between)
            for each in compiled.sent
        )
    available = chip.memory * (_USABLE if topology.platform == "tpu" else 1.0)
    if compiled is not None and compiled.available:
        available = min(available, compiled.available)
    return Outcome(job, held, available, compiled, seconds)


def _is_within(mesh: Mesh, places: tuple[int, ...]) -> bool:
    """Whether devices are of one slice or machine."""
    return len({getattr(mesh.devices.flat[place], "slice_index", 0) or 0 for place in places}) <= 1
