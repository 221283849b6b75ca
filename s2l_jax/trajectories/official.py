"""Trajectories that the official S2L code measured: a file of losses for every checkpoint."""

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
_OF_HUB = re.compile(r"(.+)@(?:step)?(\d+)_losses\.pt")


def loss_files(path: epath.Path) -> list[tuple[int, epath.Path]]:
    """The file of losses of each checkpoint of one training, and its step, in the order of steps.

    They are checkpoint-<step>/losses.pt, which may be missing, of a training run's folder; or where there is
    no such folder, OWNER_NAME@<step>_losses.pt, as that code measures revisions of the hub into hf_outputs.

    Raises:
      InputError: files of several models in one folder.
    """
    entries = list(path.iterdir())
    folders = [(match, e) for e in entries if (match := _CHECKPOINT.fullmatch(e.name)) and e.is_dir()]
    if folders:
        return sorted((int(match[1]), folder / LOSSES) for match, folder in folders)
    files = [(match, entry) for entry in entries if (match := _OF_HUB.fullmatch(entry.name))]
    if len(models := sorted({match[1] for match, _ in files})) > 1:
        raise InputError(
            f"{path}: holds losses of {' and '.join(models[:3])}: trajectories are of one model; put the "
            "others into another folder."
        )
    return sorted((int(match[2]), entry) for match, entry in files)


def files_of_losses(path: str) -> str:
    """A glob of the files that `loss_files` finds."""
    files = loss_files(epath.Path(path))
    of_hub = files and files[0][1].name != LOSSES
    return f"{path}/*@*_{LOSSES}" if of_hub else f"{path}/checkpoint-*/{LOSSES}"


def read_official(path: epath.Path) -> tuple[Float32[np.ndarray, "n t"], Int64[np.ndarray, "t"]]:
    """Losses and steps, from what BigML-CS-UCLA/S2L's get_trajectories.py left in a run's folder.

    It saves a list of N scalar tensors, the rows in the order of the data; one tensor [N] does as
    well. A row whose response was cut away has the loss NaN at every checkpoint, which becomes 0, as
    in that code's selection.

    Raises:
      InputError: PyTorch is missing, or a checkpoint has no losses.pt, one of another length or kind,
        or a loss that is infinite, or NaN there and not at every checkpoint.
    """
    files = loss_files(path)
    missing = [file.parent.name for _, file in files if not file.exists()]
    if missing:
        raise InputError(
            f"{path}: no {LOSSES} in {', '.join(missing)}; measure it (get_trajectories.py --ckpt), or "
            "move the folder away to leave that checkpoint out."
        )
    losses = np.empty((0, 0), np.float32)
    for place, (_, file) in enumerate(files):
        column = _read_column(file)
        if not place:
            losses = np.empty((len(column), len(files)), np.float32)
        if len(column) != len(losses):
            raise InputError(
                f"{file}: holds {len(column)} losses, that of step {files[0][0]} holds {len(losses)}; all "
                "checkpoints must be measured on the same rows."
            )
        losses[:, place] = column
    _zero_rows_without_loss(losses, [file for _, file in files])
    return losses, np.array([step for step, _ in files], np.int64)


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
