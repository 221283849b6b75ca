"""What the processes of a run tell each other in words, and that they were all started alike."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from s2l_jax.errors import InputError

_SHOWN = 5  # differences


def check_alike(settings: Mapping[str, str]) -> None:
    """Compare settings over all processes, which call this together.

    Raises:
      InputError: in every process, if one differs from the first; names what, and both values.
    """
    if jax.process_count() == 1:
        return
    lines = "\n".join(f"{name}: {_in_a_line(value)}" for name, value in sorted(settings.items()))
    first, *others = (dict(line.split(": ", 1) for line in said.split("\n")) for said in said_by_all(lines))
    differences = [
        f"{name}: {first.get(name, 'absent')} in process 0, {other.get(name, 'absent')} in process {number}"
        for number, other in enumerate(others, start=1)
        for name in sorted(first | other)
        if first.get(name) != other.get(name)
    ]
    if differences:
        shown = [f"  {line}" for line in differences[:_SHOWN]]
        if len(differences) > _SHOWN:
            shown.append(f"  and {len(differences) - _SHOWN} more")
        raise InputError(
            "the processes of this run were not started alike:\n"
            + "\n".join(shown)
            + "\nStart the same command "
            "with the same code and packages on each."
        )


def said_by_writer(text: str) -> str:
    """What the process that writes says, on every process; all call this together."""
    return said_by_all(text)[0]


def said_by_all(text: str) -> list[str]:
    """What each process says, in their order, on every process; all call this together."""
    if jax.process_count() == 1:
        return [text]
    mine = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(mine), np.int32))
    padded = np.zeros(max(1, sizes.max()), np.uint8)
    padded[: len(mine)] = mine
    gathered = multihost_utils.process_allgather(padded)
    return [bytes(row[:size]).decode() for row, size in zip(gathered, sizes, strict=True)]


def _in_a_line(value: str) -> str:
    return value.encode("unicode_escape").decode()
