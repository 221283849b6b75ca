"""Programs compiled for devices that are not here, in parallel processes: what they hold and send."""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from s2l_jax.console import Progress, mute, muted
from s2l_jax.forecast.collectives import Collective, collectives
from s2l_jax.forecast.programs import Program
from s2l_jax.forecast.topology import describe
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.platform import made_for

# Sizes of the mesh, the program, and how often its loops of unknown length run.
Work = tuple[tuple[int, int, int], Program, float]

_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program on one device, in bytes.

    Attributes:
      temporaries: activations and whatever else it makes and lets go, and its code.
      sent: what it sends, for each collective; None where its text cannot be had.
      available: what the compiler gives a program; 0 where it does not say.
    """

    temporaries: float
    sent: tuple[Collective, ...] | None = None
    available: float = 0.0


class Compiler:
    """Compiles programs for a topology, each once: in processes of its own, or with one worker in this.

    Args:
      topology: by name.
      workers: processes; 0: one a core.
    """

    def __init__(self, topology: str, workers: int = 0):
        self._topology = topology
        self.workers = workers or len(os.sched_getaffinity(0))
        self._made: dict[bytes, Compiled] = {}

    def __call__(self, work: Sequence[Work]) -> list[Compiled]:
        """Programs compiled, in their order."""
        # Targets on subsets of several sizes often have one program.
        keys = [pickle.dumps(each) for each in work]
        new = {key: each for key, each in zip(keys, work, strict=True) if key not in self._made}
        progress = Progress(f"compiling for {self._topology}", len(new), "programs")
        for done, (key, compiled) in enumerate(self._compiled(new), start=1):
            self._made[key] = compiled
            progress.update(done)
        progress.close()
        return [self._made[key] for key in keys]

    def _compiled(self, work: Mapping[bytes, Work]) -> Iterator[tuple[bytes, Compiled]]:
        """As they are made."""
        workers = min(len(work), self.workers)
        if workers <= 1:
            for key, each in work.items():
                yield key, compile_one(self._topology, *each)
            return
        # Not forked: XLA's threads do not survive that.
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_quiet) as pool:
            waiting = {pool.submit(compile_one, self._topology, *each): key for key, each in work.items()}
            for done in concurrent.futures.as_completed(waiting):
                yield waiting[done], done.result()


def compile_one(
    topology: str, sizes: tuple[int, int, int], program: Program, unknown_trips: float
) -> Compiled:
    """What a program holds and sends; where the compiler refuses it for its memory, what that would be."""
    described = describe(topology)
    mesh = make_mesh(*sizes, devices=described.devices)
    with made_for(described.platform), muted():
        lowered = program.lower(mesh)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _refused(str(error))
    memory: Any = compiled.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes + max(0, kept)
    try:
        with _without_standard_error():
            text = str(compiled.as_text())
    except jax.errors.JaxRuntimeError:  # libtpu 0.0.52 writes programs for v5p that jaxlib 0.10.2 cannot read
        return Compiled(float(temporaries))
    return Compiled(float(temporaries), tuple(collectives(text, mesh.size, unknown_trips)))


@contextlib.contextmanager
def _without_standard_error() -> Iterator[None]:
    """XLA prints a stack trace of a program that it cannot read, beside what it raises."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _refused(said: str) -> Compiled:
    sizes = {
        name: float(found[1]) * _UNITS[found[2]]
        for name, pattern in (
            ("temporaries", r"temporaries \(([\d.]+)([KMGT]?)"),
            ("used", r"[Uu]sed ([\d.]+)([KMGT]?)"),
            ("available", r"(?:available HBM \(| of )([\d.]+)([KMGT]?)"),
        )
        if (found := re.search(pattern, said))
    }
    needed = sizes.get("temporaries") or sizes.get("used") or float("inf")
    return Compiled(needed, available=sizes.get("available", 0.0))


def _quiet() -> None:
    os.nice(5)
    mute()
