"""What a job takes on a topology: memory, the three times that bound it, and a projection from them."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh

from s2l_jax.forecast.collectives import Collective
from s2l_jax.forecast.compiling import Compiled
from s2l_jax.forecast.jobs import Job
from s2l_jax.forecast.network import rate
from s2l_jax.forecast.programs import bytes_a_device
from s2l_jax.forecast.topology import Topology

# Of what a data sheet promises, the share that projections count on: assumed, nothing was measured.
ATTAINED = {"compute": 0.4, "memory": 0.7, "network": 0.7}
# What a product in full float32 costs beside one in bfloat16 (TPUs: six of those; GPUs: no tensor cores).
_FLOAT32 = {"tpu": 6.0, "gpu": 15.0, "cpu": 1.0}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A job on a mesh.

    Attributes:
      held: bytes of a device while it runs, by what they are; temporaries among them where it was compiled.
      available: bytes that a device has.
      exchanged: what its program sends: by its compiled form, or else by count.
      seconds: of each time at the data sheet's rates, by what would bound it: "compute", "memory", "network".
      waited: of the network's seconds, those that arithmetic waits for: sums over `tensor` are needed at
        once, while weights and gradients are sent as other layers are worked on.
    """

    job: Job
    held: Mapping[str, float]
    available: float
    compiled: Compiled | None
    exchanged: Sequence[Collective]
    seconds: Mapping[str, float]
    waited: float

    @property
    def is_counted(self) -> bool:
        """Whether what is sent is counted, and not read off the compiled program."""
        return self.compiled is None or self.compiled.sent is None

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
    def at_least(self) -> float:
        """Seconds of each time at the data sheet's rates."""
        return self._together(dict.fromkeys(ATTAINED, 1.0))

    @property
    def projected(self) -> float:
        """Seconds of each time, if the shares `ATTAINED` are."""
        return self._together(ATTAINED)

    def _together(self, shares: Mapping[str, float]) -> float:
        beside = {**self.seconds, "network": self.seconds["network"] - self.waited}
        longest = max(seconds / shares[kind] for kind, seconds in beside.items())
        return longest + self.waited / shares["network"]

    @property
    def total(self) -> float:
        """Projected seconds in the run."""
        return self.job.runs * self.projected

    @property
    def sent(self) -> dict[str, tuple[float, float]]:
        """By kind of collective, how often each time, and the bytes that a device sends."""
        found: dict[str, tuple[float, float]] = {}
        for each in self.exchanged:
            times, sent = found.get(each.kind, (0.0, 0.0))
            repeats = self.job.repeats
            found[each.kind] = times + each.times * repeats, sent + each.sent * repeats
        return found


def outcome(job: Job, topology: Topology, mesh: Mesh, compiled: Compiled | None) -> Outcome:
    """What a job takes; without a compiled program its temporaries are not known."""
    chip = topology.chip
    held = {name: float(bytes_a_device(each)) for name, each in job.program.arguments(mesh).items()}
    held |= job.beside
    if compiled is not None:
        held["temporaries"] = compiled.temporaries
    slow = _FLOAT32[topology.platform] if job.dtype == "float32" else 1.0
    devices = 1 if job.one_device else mesh.size
    read = None if compiled is None else compiled.sent
    exchanged = job.program.exchanges(mesh) if read is None else read
    seconds = {
        "compute": job.flops * job.executed * slow / (devices * chip.flops),
        "memory": job.traffic / chip.bandwidth,
    }
    places, waited = list(mesh.devices.flat), 0.0
    seconds["network"] = 0.0
    for each in exchanged:
        taken = job.repeats * each.sent / rate(topology, [places[n] for n in each.group])
        seconds["network"] += taken
        if max(each.group) - min(each.group) < mesh.shape["tensor"]:  # the last axis of the mesh
            waited += taken
    available = chip.memory * _usable(topology.platform)
    if compiled is not None and compiled.available:
        available = min(available, compiled.available)
    return Outcome(job, held, available, compiled, exchanged, seconds, waited)


def _usable(platform: str) -> float:
    """The share of a device's memory that programs get."""
    if platform == "gpu":
        return float(os.environ.get("XLA_CLIENT_MEM_FRACTION") or 0.75)  # as JAX takes it
    return 15.75 / 16 if platform == "tpu" else 1.0  # that of libtpu's compiler
