"""Trajectories that the official S2L code measured: a losses.pt in every checkpoint's folder."""

import pickle
import re

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32, Int64

from s2l_jax.errors import InputError

LOSSES = "losses.pt"
_SAFE_TORCH = "2.10"  # in earlier ones `weights_only` was escaped from
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def checkpoint_folders(path: epath.Path) -> list[tuple[int, epath.Path]]:
    """The folders checkpoint-<step> of a training run, in the order of their steps."""
    entries = ((_CHECKPOINT.fullmatch(entry.name), entry) for entry in path.iterdir())
    return sorted((int(match[1]), entry) for match, entry in entries if match and entry.is_dir())


def read_official(path: epath.Path) -> tuple[Float32[np.ndarray, "n t"], Int64[np.ndarray, "t"]]:
    """Losses and steps, from what BigML-CS-UCLA/S2L's get_trajectories.py left in a run's folder.

    It saves a list of N scalar tensors, the rows in the order of the data; one tensor [N] does as
    well. A row whose response was cut away has the loss NaN at every checkpoint, which becomes 0, as
    in that code's selection.

    Raises:
      InputError: PyTorch is missing, or a checkpoint has no losses.pt, one of another length or kind,
        or a loss that is infinite, or NaN there and not at every checkpoint.
    """
    folders = checkpoint_folders(path)
    missing = [folder.name for _, folder in folders if not (folder / LOSSES).exists()]
    if missing:
        raise InputError(
            f"{path}: no {LOSSES} in {', '.join(missing)}; measure it (get_trajectories.py --ckpt), or "
            "move the folder away to leave that checkpoint out."
        )
    losses = np.empty((0, 0), np.float32)
    for place, (_, folder) in enumerate(folders):
        column = _read_column(folder / LOSSES)
        if not place:
            losses = np.empty((len(column), len(folders)), np.float32)
        if len(column) != len(losses):
            raise InputError(
                f"{folder / LOSSES}: holds {len(column)} losses, that of {folders[0][1].name} holds "
                f"{len(losses)}; all checkpoints must be measured on the same rows."
            )
        losses[:, place] = column
    _zero_rows_without_loss(losses, [folder / LOSSES for _, folder in folders])
    return losses, np.array([step for step, _ in folders], np.int64)


def _read_column(path: epath.Path) -> Float32[np.ndarray, "n"]:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{path}: reading it needs PyTorch: pip install torch.") from error
    if torch.__version__ < _SAFE_TORCH:
        raise InputError(
            f"{path}: reading it with PyTorch {torch.__version__} may run code that the file holds, in spite "
            f"of weights_only=True: pip install 'torch>={_SAFE_TORCH}'."
        )
    try:
        with path.open("rb") as file:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        if isinstance(loaded, list | tuple):
            return np.fromiter(map(float, loaded), np.float32, len(loaded))
        if not torch.is_tensor(loaded):
            raise ValueError(f"it is a {type(loaded).__name__}")
        if loaded.ndim != 1 or not loaded.is_floating_point():
            raise ValueError(f"it is a tensor of shape {list(loaded.shape)} and type {loaded.dtype}")
        return loaded.float().numpy()
    except (RuntimeError, ValueError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: not a list of losses or a tensor [N] that torch.save wrote ({reason})."
        ) from error


def _zero_rows_without_loss(losses: Float32[np.ndarray, "n t"], files: list[epath.Path]) -> None:
    without = np.isnan(losses).all(axis=1)
    for place, file in enumerate(files):
        bad = np.flatnonzero(~np.isfinite(losses[:, place]) & ~without)
        if len(bad):
            raise InputError(
                f"{file}: {len(bad)} losses are not finite though other checkpoints have finite ones; the "
                f"first is row {bad[0]} (from 0), {losses[bad[0], place]}. Training diverged, or the model "
                "was measured in half precision: measure it again, or leave the checkpoint out."
            )
    if without.any():
        rows = ", ".join(map(str, np.flatnonzero(without)[:5]))
        logging.warning("%d rows have no loss at any checkpoint (%s); set to 0", without.sum(), rows)
        losses[without] = 0
