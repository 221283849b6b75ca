"""When the proxy's losses are swept: the finished training steps, from the cadence that was asked for."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Self

from ml_collections import ConfigDict

from s2l_jax.errors import InputError

FEW_CHECKPOINTS = 4  # below which it is said that there are few; what fewer cost was not measured


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How sweeps are spread over a run; the fields are those of `trajectories` in the config."""

    cadence: str = "every"  # a key of `_SPREAD`
    every: int = 500  # steps, for "every"
    num_checkpoints: int = 12  # for "even" and "log"
    steps: tuple[int, ...] = ()  # such as (10, 50, 200), for "list"
    step_zero: bool = False  # also before the first step

    @classmethod
    def of(cls, asked: ConfigDict) -> Self:
        """That of the group `trajectories` of a config."""
        return cls(**{field.name: asked[field.name] for field in dataclasses.fields(cls)})

    def among(self, saved: Iterable[int]) -> list[int]:
        """The steps to sweep of those that parameters were saved at: the listed ones, else all."""
        return sorted(step for step in saved if self.cadence != "list" or step in self.listed)

    @property
    def listed(self) -> set[int]:
        """The steps of "list"."""
        return {*self.steps, *([0] if self.step_zero else [])}


def sweep_steps(cadence: Cadence, num_steps: int) -> list[int]:
    """Numbers of finished steps of the proxy's `num_steps` after which to sweep, sorted and distinct.

    "every" is every so many steps, "even" spreads the checkpoints evenly with the last step among
    them, "log" makes the steps grow by a constant factor, from step 1 to the last, with at least one
    step between checkpoints, and "list" is as written.

    Raises:
      InputError: a cadence longer than the run, more checkpoints than steps, or steps beyond the run.
    """
    steps = _SPREAD[cadence.cadence](cadence, num_steps)
    return sorted({0, *steps} if cadence.step_zero else {*steps})


def is_checkpoint(name: str) -> bool:
    """Whether a text can name a checkpoint of a run: "first", "last", or a step."""
    return name in ("first", "last") or name.isdecimal()


def find_checkpoint(name: str, steps: Sequence[int]) -> int:
    """The place of a checkpoint among the steps at which losses were measured.

    Raises:
      InputError: it is neither "first", "last" nor one of the steps.
    """
    if name == "first":
        return 0
    if name == "last":
        return len(steps) - 1
    if name.isdecimal() and int(name) in steps:
        return list(steps).index(int(name))
    known = ", ".join(map(str, steps)) if len(steps) <= 12 else f"{steps[0]}, {steps[1]} ... {steps[-1]}"
    raise InputError(f"checkpoint={name!r}: no such checkpoint; use first, last or a step of {known}")


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
    if beyond := sorted(step for step in {*cadence.steps} if step > num_steps):
        raise InputError(
            f"trajectories.steps={cadence.steps!r}: the proxy's run has {num_steps} steps, so there is no "
            f"sweep after {', '.join(map(str, beyond))}. Leave it out, or train the proxy longer."
        )
    return list(cadence.steps)


def _fitting_count(cadence: Cadence, num_steps: int) -> int:
    if cadence.num_checkpoints > num_steps:
        raise InputError(
            f"trajectories.num_checkpoints={cadence.num_checkpoints} is more than the {num_steps} steps of "
            "the proxy's run. Lower it, or train the proxy longer."
        )
    return cadence.num_checkpoints


_SPREAD = {"every": _every, "even": _even, "log": _log, "list": _list}
