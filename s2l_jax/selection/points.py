"""What S2L clusters: loss trajectories, falls of the loss, or hidden states, thinned and scaled."""

import numpy as np
from jaxtyping import Float

from s2l_jax.errors import InputError
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.known import Known

_LEAST_LOSS = 1e-6  # nats; an example without a loss has 0, which has no logarithm


def check_points(known: Known, features: str, *, every: int, num_checkpoints: int, log_losses: bool) -> None:
    """Raise an InputError for columns that there are not, or options of losses where none are clustered."""
    if features == "hidden_states":
        of_losses = {"every": every != 1, "num_checkpoints": num_checkpoints, "log_losses": log_losses}
        if asked := [name for name, is_set in of_losses.items() if is_set]:
            raise InputError(f"s2l: {asked[0]} is of losses, and features='hidden_states' has none")
    elif known.num_columns is not None:
        kept = num_kept(known.num_columns, every, num_checkpoints)
        if features == "loss_falls":
            _check_falls(kept)


def points_of(
    inputs: SelectionInputs,
    features: str,
    *,
    every: int,
    num_checkpoints: int,
    log_losses: bool,
    standardise: bool,
) -> Float[np.ndarray, "n d"]:
    """What is clustered, a row for each example."""
    if features == "hidden_states":
        return _scaled(inputs.hidden_states, False, True) if standardise else inputs.hidden_states
    losses = thinned(inputs.trajectories, every, num_checkpoints)
    if features == "loss_falls":
        _check_falls(losses.shape[1])
        losses = _scaled(losses, True, False) if log_losses else losses
        falls = losses[:, :-1] - losses[:, 1:]
        return _scaled(falls, False, True) if standardise else falls
    return _scaled(losses, log_losses, standardise) if log_losses or standardise else losses


def thinned(
    trajectories: Float[np.ndarray, "n t"], every: int, num_checkpoints: int
) -> Float[np.ndarray, "n s"]:
    """Every so-many-th of the first columns (0: of all), as a view.

    Raises:
      InputError: more columns than there are, or none left.
    """
    num_kept(trajectories.shape[1], every, num_checkpoints)
    return trajectories[:, : num_checkpoints or None][:, every - 1 :: every]


def num_kept(columns: int, every: int, num_checkpoints: int) -> int:
    """How many columns `thinned` leaves; it raises the same."""
    if num_checkpoints > columns:
        raise InputError(
            f"s2l: num_checkpoints={num_checkpoints}, but trajectories have {columns} columns; use at most "
            f"{columns}"
        )
    kept = num_checkpoints or columns
    if every > kept:
        raise InputError(
            f"s2l: every={every} leaves none of the {kept} trajectory columns; use at most {kept}"
        )
    return kept // every


def _check_falls(columns: int) -> None:
    if columns < 2:
        raise InputError("s2l: features='loss_falls' needs two checkpoints, and there is one")


def _scaled(
    trajectories: Float[np.ndarray, "n t"], log_losses: bool, standardise: bool
) -> Float[np.ndarray, "n t"]:
    scaled = np.empty(trajectories.shape, np.float32)
    for column in range(trajectories.shape[1]):
        values = trajectories[:, column].astype(np.float32)
        if log_losses:
            values = np.log(np.maximum(values, np.float32(_LEAST_LOSS)))
        if standardise:
            spread = values.std(dtype=np.float64)
            values = (values - values.mean(dtype=np.float64)) / (spread if spread > 0 else 1.0)
        scaled[:, column] = values
    return scaled
