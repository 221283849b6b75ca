"""Trajectories made elsewhere, in any of the layouts people have them in."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64, UInt64

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.trajectories.official import files_of_losses, loss_files, read_official
from s2l_jax.trajectories.parquet_file import read_parquet
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
    """Read trajectories in any of the layouts of docs/guide/trajectories.md, which the path itself tells.

    A trajectory store (a .zarr folder); a folder of checkpoint-<step>/losses.pt, or of NAME@<step>_losses.pt,
    as the official S2L code writes them; a .npy file of losses [N, T]; an .npz file of `losses` and, where
    known, `steps` [T] and `ids` [N]; a .parquet file with one row per example. Losses of any float type
    become float32.

    Raises:
      InputError: nothing there, an unknown layout, losses that are not [N, T], or steps and ids
        that do not belong to them.
    """
    path = epath.Path(path)
    steps: np.ndarray | None
    ids: np.ndarray | None
    if not path.exists():
        raise InputError(f"{path}: does not exist; {artifacts.near(path)}")
    if path.is_dir():
        if (path / "zarr.json").exists():
            store = TrajectoryStore(path)
            return _checked(path, store.read(), store.steps(), store.ids() if store.has_row_ids else None)
        if not loss_files(path):
            raise InputError(
                f"{path}: not a trajectory store: no zarr.json there, nor folders checkpoint-<step>, nor "
                "files NAME@<step>_losses.pt."
            )
        losses, steps, ids = *read_official(path), None
    elif path.suffix in (".npy", ".npz"):
        losses, steps, ids = _read_numpy(path)
    elif path.suffix == ".parquet":
        losses, steps, ids = read_parquet(path)
    else:
        raise InputError(f"{path}: not a trajectory store, .npy, .npz or .parquet file.")
    if not losses.size:
        raise InputError(f"{path}: losses have shape {losses.shape}: there is nothing in them.")
    return _checked(path, losses, steps, ids)


def files_of(path: str) -> str:
    """The path or glob of the files that `load_trajectories(path)` reads."""
    folder = epath.Path(path)
    if folder.is_dir() and not (folder / "zarr.json").exists():
        return files_of_losses(path)  # beside them are weights, too large to be hashed
    return path


def _read_numpy(path: epath.Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Losses, steps and ids; the last two are None where the file has none."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None, None
            arrays = {name: loaded[name] for name in ("losses", "steps", "ids") if name in loaded}
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes NumPy raise, MemoryError among it
        raise InputError(f"{path}: not a readable NumPy file ({error}).") from error
    if "losses" not in arrays:
        raise InputError(f"{path}: holds {sorted(loaded.files)}, but no array named `losses`.")
    return arrays["losses"], arrays.get("steps"), arrays.get("ids")


def _checked(path: epath.Path, losses: Any, steps: Any, ids: Any) -> Trajectories:
    if losses.ndim != 2 or not np.issubdtype(losses.dtype, np.floating):
        raise InputError(
            f"{path}: losses have shape {losses.shape} and type {losses.dtype}; a float array "
            "[examples, checkpoints] is needed."
        )
    n, t = losses.shape
    steps = np.arange(1, t + 1) if steps is None else steps
    if steps.shape != (t,) or steps.dtype.kind not in "iuf" or (steps[1:] <= steps[:-1]).any():
        raise InputError(
            f"{path}: {t} columns of losses, but steps of shape {steps.shape} and type "
            f"{steps.dtype}; one number a column is needed, each above the one before."
        )
    if ids is not None and (ids.shape != (n,) or ids.dtype.kind not in "iu" or (ids < 0).any()):
        raise InputError(
            f"{path}: {n} rows of losses, but ids of shape {ids.shape} and type {ids.dtype}; one "
            "whole number of at least 0 a row is needed."
        )
    whole = np.isfinite(steps) & (steps >= 0) & (steps < 2**63) & (np.floor(steps) == steps)
    if not whole.all():
        column = int(np.flatnonzero(~whole)[0])
        raise InputError(
            f"{path}: column {column} of the losses (from 0) has the step {steps[column]}; training steps "
            "are whole numbers of at least 0."
        )
    return Trajectories(
        np.ascontiguousarray(losses, np.float32),
        steps.astype(np.int64),
        None if ids is None else ids.astype(np.uint64),
    )
