"""Snapshots of the proxy's parameters: kept at each sweep, so that losses can be swept again later."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh

from s2l_jax import artifacts, integrity
from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.parameters import Params
from s2l_jax.models.weight_files import INDEX
from s2l_jax.parallel import processes
from s2l_jax.parallel.placement import load_model
from s2l_jax.training.hooks import Hook
from s2l_jax.training.models import Model

_WAY_OUT = "this snapshot cannot be swept: take it from a copy, or leave it out with trajectories.steps"
MARK = "snapshot.json"  # written last: a folder with it holds a complete snapshot


def save_snapshot(folder: epath.Path, params: Params, model: Model, made_with: Mapping[str, Any]) -> None:
    """Write `folder` as a checkpoint in Hugging Face layout, unless it holds a complete snapshot.

    Parameters are kept in float32, as they are trained: 4 bytes each, and a sweep over a snapshot has
    the bytes of the sweep that the run itself made. Every process takes part; one writes.

    Args:
      folder: named by the number of finished steps.
      params: the live parameters; they are gathered to the host a shard at a time.
      model: the one that trains; its tokeniser is saved beside the weights.
      made_with: what a later sweep must agree with.
    """
    complete = (folder / MARK).exists()
    processes.barrier(f"snapshot {folder.name}")  # none looks after another has begun to write
    if complete:
        return
    hf.save_model(folder, params, model.config, model.hf_config, dtype=jnp.float32, tokenizer=model.tokenizer)
    if jax.process_index() == 0:
        integrity.write_json(folder / MARK, {"made_with": dict(made_with), "sha256": _digests(folder)})
    processes.barrier(f"snapshot {folder.name} written")


class SnapshotKeeper(Hook):
    """Keeps the parameters at each of `steps`, as `save_snapshot` does; handed to training before the sweep.

    Once a step has its column it is not looked at again, so its snapshot must be there by then.
    """

    def __init__(
        self, folder: epath.Path, model: Model, made_with: Mapping[str, Any], steps: Collection[int]
    ):
        self._folder, self._model, self._made_with = folder, model, made_with
        self._steps = frozenset(steps)

    def is_due(self, step: int) -> bool:
        return step in self._steps

    def at_cadence(self, step: int, params: Params) -> None:
        save_snapshot(self._folder / str(step), params, self._model, self._made_with)


def find_snapshots(path: epath.PathLike) -> dict[int, epath.Path]:
    """The folder of each complete snapshot below `path`, by its step, in order.

    Raises:
      InputError: there is none.
    """
    path = epath.Path(path)
    folders = [f for f in path.iterdir() if f.name.isdigit()] if path.exists() else []
    found = {int(folder.name): folder for folder in folders if (folder / MARK).exists()}
    if not found:
        raise InputError(
            f"trajectories.snapshots: no snapshot in {path}. It is to be the folder proxy/snapshots of a "
            "workdir whose proxy was trained with proxy.save_params=True."
        )
    return dict(sorted(found.items()))


def read_mark(folder: epath.Path) -> dict[str, Any]:
    """What a snapshot was made with (`made_with`), and the hashes of its files (`sha256`)."""
    return integrity.read_json(folder / MARK, _WAY_OUT)


def load_snapshot(folder: epath.Path, mesh: Mesh) -> Decoder:
    """The model of a snapshot, in float32, checked against the hashes it was written with.

    Raises:
      InputError: a file has changed or is gone.
    """
    with artifacts.reading_folder(folder) as local:
        integrity.check(local, read_mark(folder)["sha256"], _WAY_OUT, shown=folder)
        return load_model(str(local), mesh)


def _digests(folder: epath.Path) -> dict[str, str]:
    """Of the config and weights in a folder."""
    weights = sorted(file.name for file in folder.glob("*.safetensors"))
    index = [INDEX] if (folder / INDEX).exists() else []
    return integrity.digests(folder, ["config.json", *index, *weights])
