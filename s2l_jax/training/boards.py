"""Where a run's numbers can be watched: TensorBoard's files, and Weights & Biases where it is asked for."""

import contextlib
import dataclasses
import importlib.util
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath
from jaxtyping import Float32

from s2l_jax import artifacts
from s2l_jax.errors import InputError

BINS = 50  # of a histogram
_FOLDER = "tensorboard"


@dataclasses.dataclass(frozen=True)
class Shown:
    """Numbers after a step, and arrays of which the distribution is shown."""

    step: int
    numbers: Mapping[str, float]
    arrays: Mapping[str, Float32[np.ndarray, " n"]] = dataclasses.field(default_factory=dict)


class Board(Protocol):
    """Shows the numbers of one training run."""

    def show(self, shown: Shown) -> None:
        """Add a point to each curve, and a histogram of each array."""

    def publish(self) -> None:
        """Bring what was shown to where it is kept, if that is elsewhere."""

    def close(self) -> None:
        """The run has ended, or failed."""


class TensorBoard:
    """Files in `tensorboard/` of the run's folder.

    Args:
      path: the run's folder.
      start: finished steps of the run that this one goes on from.
    """

    def __init__(self, path: epath.Path, start: int):
        # Not its SummaryWriter, whose thread dies on a full disk while the run waits for it forever.
        from tensorboardX.event_file_writer import EventsWriter

        self._path, self._closing = path, contextlib.ExitStack()
        folder = artifacts.writing_folder(path / _FOLDER)  # tensorboardX writes local files
        self._events = self._closing.enter_context(folder)
        # Names have whole seconds: without `start` a quick restart would overwrite.
        self._writer = EventsWriter(str(self._events / "events"), f".{start}")
        if start:  # points that an interrupted run wrote after its last checkpoint are taken back
            self._write(start + 1, session_log={"status": "START"})

    def show(self, shown: Shown) -> None:
        from tensorboardX.summary import histogram

        values: list[Any] = [{"tag": tag, "simple_value": value} for tag, value in shown.numbers.items()]
        for tag, array in shown.arrays.items():
            values += histogram(tag, array, BINS).value
        self._write(shown.step, summary={"value": values})

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        try:
            self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
            self._writer.flush()
        except OSError as error:
            raise OSError(f"{self._events}: TensorBoard's files were not written ({error})") from error

    def publish(self) -> None:
        if artifacts.is_remote(self._path):
            artifacts.publish(self._events, self._path / _FOLDER)

    def close(self) -> None:
        with self._closing:
            self._writer.close()


class WeightsAndBiases:
    """A run of a Weights & Biases project; one that was interrupted goes on under the id in its folder.

    Args:
      project: its name.
      path: the training run's folder, whose last parts name it.
      settings: shown beside the run.

    Raises:
      InputError: Weights & Biases does not take the run.
    """

    def __init__(self, project: str, path: epath.Path, settings: Mapping[str, Any]):
        import wandb

        self._wandb = wandb
        kept = path / "wandb_id"
        identity = kept.read_text() if kept.exists() else secrets.token_hex(8)
        artifacts.write_text(kept, identity)
        try:
            self._run = wandb.init(
                project=project,
                id=identity,
                name="/".join(path.parts[-3:]),
                resume="allow",
                config=dict(settings),
                dir=None if artifacts.is_remote(path) else os.fspath(path),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise InputError(
                f"wandb={project!r}: Weights & Biases says {str(error)!r}. Run `wandb login` before, set "
                "WANDB_MODE=offline, which keeps the run here, or leave wandb empty."
            ) from error
        self._run.define_metric("*", step_metric="step")

    def show(self, shown: Shown) -> None:
        histograms = {
            tag: self._wandb.Histogram(np_histogram=np.histogram(array, BINS))
            for tag, array in shown.arrays.items()
        }
        self._run.log({"step": shown.step, **shown.numbers, **histograms})

    def publish(self) -> None:
        """It uploads as it goes."""

    def close(self) -> None:
        self._run.finish()


def check_wandb(project: str) -> None:
    """Raise an InputError if Weights & Biases is asked for and its library is not here."""
    if project and importlib.util.find_spec("wandb") is None:
        raise InputError(
            f"wandb={project!r}: the library of Weights & Biases is not installed: pip install wandb, or "
            "leave wandb empty."
        )
