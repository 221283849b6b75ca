"""Programs compiled for devices that are not here, in parallel processes: what they hold and send."""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import pickle
import re
from collections.abc import Sequence
from typing import Any

import jax

from s2l_jax.console import Progress, mute
from s2l_jax.forecast.collectives import Collective, collectives
from s2l_jax.forecast.programs import Program
from s2l_jax.forecast.topology import describe
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.platform import made_for

_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program on one device, in bytes.

    Attributes:
      temporaries: activations and whatever else it makes and lets go, and its code.
      sent: what it sends, for each collective.
      available: what the compiler gives a program; 0 where it does not say.
    """

    temporaries: float
    sent: tuple[Collective, ...] = ()
    available: float = 0.0


def compile_all(
    topology: str, work: Sequence[tuple[tuple[int, int, int], Program, float]], workers: int = 0
) -> list[Compiled]:
    """Programs compiled, each for a mesh of a topology, in their order.

    Args:
      topology: by name.
      work: sizes of the mesh, program, and how often its loops of unknown length run.
      workers: processes; 0: one a core. With one, it is this process.
    """
    # Targets on subsets of several sizes often have one program.
    keys = [pickle.dumps(each) for each in work]
    distinct = dict(zip(keys, work, strict=True))
    progress = Progress(f"compiling for {topology}", len(distinct), "programs")
    workers = min(len(distinct), workers or len(os.sched_getaffinity(0)))
    if workers <= 1:
        made = {}
        for key, each in distinct.items():
            made[key] = compile_one(topology, *each)
            progress.update(len(made))
        progress.close()
        return [made[key] for key in keys]
    # Not forked: XLA's threads do not survive that.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_quiet) as pool:
        waiting = {key: pool.submit(compile_one, topology, *each) for key, each in distinct.items()}
        for done, _ in enumerate(concurrent.futures.as_completed(waiting.values()), start=1):
            progress.update(done)
        progress.close()
        return [waiting[key].result() for key in keys]


def compile_one(
    topology: str, sizes: tuple[int, int, int], program: Program, unknown_trips: float
) -> Compiled:
    """What a program holds and sends; where the compiler refuses it for its memory, what that would be."""
    described = describe(topology)
    mesh = make_mesh(*sizes, devices=described.devices)
    with made_for(described.platform):
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
    sent = collectives(str(compiled.as_text()), mesh.size, unknown_trips)
    return Compiled(float(temporaries), tuple(sent))


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
