"""A trace of some training steps, which XProf and TensorBoard's profiler open."""

import contextlib
import dataclasses
import re

import jax
from etils import epath

from s2l_jax import artifacts
from s2l_jax.console import say
from s2l_jax.errors import InputError
from s2l_jax.models.parameters import Params
from s2l_jax.training.hooks import Hook

FOLDER = "profile"


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps that are traced, the first counted as 1."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "Steps":
        """From "10-15", or "steps 10-15".

        Raises:
          InputError: anything else.
        """
        found = re.fullmatch(r"(?:steps )?(\d+)-(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--profile={text}: needs the first and last step to trace, such as 10-15.")
        return cls(int(found[1]), int(found[2]))


class Profiler(Hook):
    """Traces steps of a training run into a folder of it; each process its own devices."""

    def __init__(self, path: epath.Path, steps: Steps):
        self._folder, self._steps = path / FOLDER, steps
        self._tracing: contextlib.ExitStack | None = None
        self._done = False

    def is_due(self, step: int) -> bool:
        return step in (self._steps.first - 1, self._steps.last)

    def at_cadence(self, step: int, params: Params) -> None:
        jax.block_until_ready(params)
        if step < self._steps.last and self._tracing is None:
            self._tracing = contextlib.ExitStack()
            folder = self._tracing.enter_context(artifacts.writing_folder(self._folder))
            jax.profiler.start_trace(str(folder))
            self._tracing.callback(jax.profiler.stop_trace)
        elif self._tracing is not None:
            self.close()

    def close(self) -> None:
        """End the trace, also one that a run's end cuts short."""
        if self._tracing is not None:
            self._tracing.close()
            self._tracing, self._done = None, True
            say(f"  steps {self._steps.first} to {self._steps.last} are traced in {self._folder}")
        elif not self._done:
            say(
                f"  --profile: this run did not come from step {self._steps.first} to the one after; no trace"
            )
            self._done = True
