"""When the proxy's losses are swept: the finished training steps, from the cadence that was asked for."""

import dataclasses
from typing import Any

from s2l_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How sweeps are spread over a run; the fields are those of `trajectories` in the config."""

    cadence: str = "every"  # a key of `_SPREAD`
    every: int = 500  # steps, for "every"
    num_checkpoints: int = 12  # for "even" and "log"
    steps: str = ""  # such as "10,50,200", for "list"
    step_zero: bool = False  # also before the first step

    @property
    def decisive(self) -> dict[str, Any]:
        """The fields that the steps follow from; the others are not looked at."""
        used = {"every": ["every"], "list": ["cadence", "steps"]}
        names = used.get(self.cadence, ["cadence", "num_checkpoints"])
        return {name: getattr(self, name) for name in (*names, "step_zero")}


def sweep_steps(cadence: Cadence, num_steps: int) -> list[int]:
    """Numbers of finished steps after which to sweep, sorted and distinct.

    "every" is every so many steps, "even" spreads the checkpoints evenly with the last step among
    them, "log" makes the steps grow by a constant factor, from step 1 to the last, with at least one
    step between checkpoints, and "list" is as written.

    Args:
      cadence: what was asked for.
      num_steps: optimiser steps of the proxy's run.

    Raises:
      InputError: a cadence longer than the run, more checkpoints than steps, steps beyond the run,
        or a list that is not one.
    """
    steps = _SPREAD[cadence.cadence](cadence, num_steps)
    return sorted({0, *steps} if cadence.step_zero else {*steps})


def listed_steps(text: str) -> list[int]:
    """The numbers of a list such as "10,50,200", as they are written.

    Raises:
      InputError: empty, or something in it that is not a whole number of at least 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if bad := [part for part in parts if not (part.isascii() and part.isdigit())]:
        raise InputError(
            f"trajectories.steps={text!r}: {bad[0]!r} is not a step; write whole numbers with commas "
            "between, such as '10,50,200'."
        )
    return [int(part) for part in parts]


def _every(cadence: Cadence, num_steps: int) -> list[int]:
    if cadence.every > num_steps:
        raise InputError(
            f"trajectories.every={cadence.every} is longer than the proxy's run of {num_steps} steps: no "
            "loss would ever be measured. Lower it, or train the proxy longer."
        )
    return list(range(cadence.every, num_steps + 1, cadence.every))


def _even(cadence: Cadence, num_steps: int) -> list[int]:
    count = _fitting_count(cadence, num_steps)
    return [number * num_steps // count for number in range(1, count + 1)]


def _log(cadence: Cadence, num_steps: int) -> list[int]:
    count = _fitting_count(cadence, num_steps)
    if count == 1:
        return [num_steps]
    places = [1.0]
    while len(places) < count:
        # Where the factor would not reach the next whole step, one step is taken, and the factor for
        # what remains is a little larger.
        factor = (num_steps / places[-1]) ** (1 / (count - len(places)))
        places.append(max(places[-1] * factor, places[-1] + 1))
    return [round(place) for place in places[:-1]] + [num_steps]


def _list(cadence: Cadence, num_steps: int) -> list[int]:
    steps = listed_steps(cadence.steps)
    if max(steps) > num_steps:
        beyond = ", ".join(str(step) for step in sorted(set(steps)) if step > num_steps)
        raise InputError(
            f"trajectories.steps={cadence.steps!r}: the proxy's run has {num_steps} steps, so there is no "
            f"sweep after {beyond}. Leave it out, or train the proxy longer."
        )
    return steps


def _fitting_count(cadence: Cadence, num_steps: int) -> int:
    if cadence.num_checkpoints > num_steps:
        raise InputError(
            f"trajectories.num_checkpoints={cadence.num_checkpoints} is more than the {num_steps} steps of "
            "the proxy's run. Lower it, or train the proxy longer."
        )
    return cadence.num_checkpoints


_SPREAD = {"every": _every, "even": _even, "log": _log, "list": _list}
