"""Trajectories made elsewhere, in any of the layouts people have them in."""

import dataclasses
import functools
import hashlib
import zipfile
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64, UInt64

from s2l_jax.errors import InputError
from s2l_jax.trajectories.store import TrajectoryStore


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Losses of N examples at T checkpoints."""

    losses: Float32[np.ndarray, "n t"]
    steps: Int64[np.ndarray, "t"]  # training steps; 1 to T where the source does not say
    ids: UInt64[np.ndarray, "n"] | None  # None where the source has none

    @functools.cached_property
    def digest(self) -> str:
        """A hash of losses and steps."""
        digest = hashlib.sha256(np.ascontiguousarray(self.steps).data)
        digest.update(np.ascontiguousarray(self.losses).data)
        return digest.hexdigest()


def load_trajectories(path: epath.PathLike) -> Trajectories:
    """Read a trajectory store (a .zarr folder), or a .npy or .npz file.

    An .npz holds `losses` [N, T] and, where known, `steps` [T] and `ids` [N].

    Raises:
      InputError: nothing there, an unknown layout, losses that are not [N, T], or steps and ids
        that do not belong to them.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check trajectories.path.")
    if path.is_dir():
        store = TrajectoryStore(path)
        return _checked(path, store.read(), store.steps(), store.ids())
    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"{path}: not a trajectory store, .npy or .npz file.")
    arrays = _read_arrays(path)
    if "losses" not in arrays:
        raise InputError(f"{path}: holds {sorted(arrays)}, but no array named `losses`.")
    losses = arrays["losses"]
    if not losses.size:
        raise InputError(f"{path}: losses have shape {losses.shape}: there is nothing in them.")
    return _checked(path, losses, arrays.get("steps"), arrays.get("ids"))


def _read_arrays(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"losses": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable NumPy file ({error}).") from error


def _checked(path: epath.Path, losses: Any, steps: Any, ids: Any) -> Trajectories:
    if losses.ndim != 2 or not np.issubdtype(losses.dtype, np.floating):
        raise InputError(
            f"{path}: losses have shape {losses.shape} and type {losses.dtype}; a float array "
            "[examples, checkpoints] is needed."
        )
    n, t = losses.shape
    steps = np.arange(1, t + 1) if steps is None else steps
    if steps.shape != (t,) or steps.dtype.kind not in "iuf" or (np.diff(steps) <= 0).any():
        raise InputError(
            f"{path}: {t} columns of losses, but steps of shape {steps.shape} and type "
            f"{steps.dtype}; one number a column is needed, each above the one before."
        )
    if ids is not None and (ids.shape != (n,) or ids.dtype.kind not in "iu" or (ids < 0).any()):
        raise InputError(
            f"{path}: {n} rows of losses, but ids of shape {ids.shape} and type {ids.dtype}; one "
            "whole number of at least 0 a row is needed."
        )
    return Trajectories(
        losses.astype(np.float32, copy=False),
        steps.astype(np.int64),
        None if ids is None else ids.astype(np.uint64),
    )
