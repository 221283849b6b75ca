"""Trajectories made elsewhere, in any of the layouts people have them in."""

import dataclasses

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


def load_trajectories(path: epath.PathLike) -> Trajectories:
    """Read a trajectory store (a .zarr folder), or a .npy or .npz file.

    An .npz holds `losses` [N, T] and, where known, `steps` [T] and `ids` [N].

    Raises:
      InputError: nothing there, an unknown layout, or an array that is not [N, T].
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check trajectories.path.")
    if path.is_dir():
        store = TrajectoryStore(path)
        return Trajectories(store.read(), store.steps(), store.ids())
    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"{path}: not a trajectory store, .npy or .npz file.")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = dict(loaded) if path.suffix == ".npz" else {"losses": loaded}
    except ValueError as error:
        raise InputError(f"{path}: not a readable NumPy file ({error}).") from error
    if "losses" not in arrays:
        raise InputError(f"{path}: holds {sorted(arrays)}, but no array named `losses`.")
    losses = arrays["losses"]
    if losses.ndim != 2 or not np.issubdtype(losses.dtype, np.floating):
        raise InputError(
            f"{path}: losses have shape {losses.shape} and type {losses.dtype}; a float array "
            "[examples, checkpoints] is needed."
        )
    steps = arrays.get("steps", np.arange(1, losses.shape[1] + 1)).astype(np.int64)
    if len(steps) != losses.shape[1]:
        raise InputError(f"{path}: {losses.shape[1]} columns but {len(steps)} steps.")
    ids = arrays.get("ids")
    if ids is not None and len(ids) != len(losses):
        raise InputError(f"{path}: {len(losses)} rows but {len(ids)} ids.")
    return Trajectories(
        losses.astype(np.float32), steps, None if ids is None else ids.astype(np.uint64)
    )
