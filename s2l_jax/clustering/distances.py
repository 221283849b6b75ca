"""Distances other than the squared Euclidean one, as that of rescaled rows."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from s2l_jax.errors import InputError

_Rows = Any  # NumPy's or JAX's, [N, T]; JAX is not imported, as the config reads the names from here

_ROUNDING = 1e-6  # a centred row this much shorter than the row itself is a constant one
_PIECE_ROWS = 2**18  # rows in NumPy rescaled together


def _unit(rows: _Rows, centre: bool = False) -> _Rows:
    xp = rows.__array_namespace__()

    def lengths(rows: _Rows) -> _Rows:
        return xp.sqrt(xp.square(rows).sum(1, keepdims=True))

    # By its largest value first, so that squares neither overflow nor vanish.
    largest = xp.abs(rows).max(1, keepdims=True)
    rows, none = rows / xp.where(largest > 0, largest, 1), 0.0
    if centre:
        rows, none = rows - rows.mean(1, keepdims=True), _ROUNDING * lengths(rows)
    length = lengths(rows)
    # A comparison that NaN fails, so that it stays.
    return xp.where(length <= none, 0, rows / xp.where(length <= none, 1, length))


# Name -> the rescaling, in float32, after which squared Euclidean distance orders pairs as that distance
# does; None: the rows as they are. Whatever offers a choice of distances reads it here.
DISTANCES: Mapping[str, Callable[[_Rows], _Rows] | None] = {
    "euclidean": None,
    "cosine": _unit,
    "correlation": functools.partial(_unit, centre=True),
}


def check_distance(distance: str, where: str) -> None:
    """Raise InputError, which begins with `where`, if there is no such distance."""
    if distance not in DISTANCES:
        raise InputError(f"{where}: distance must be one of {', '.join(DISTANCES)}, got {distance!r}")


def rescaled(points: ArrayLike, distance: str) -> _Rows:
    """Rows [N, T] among which squared Euclidean distance orders pairs as `distance` does.

    For "cosine" rows are brought to length 1: |a - b|^2 is then 2 (1 - cos(a, b)). For "correlation"
    their own mean is taken off before, which leaves the shape of a trajectory and not its level or
    scale. Rows of zeros, and for "correlation" constant rows, have no direction: they become zeros,
    all in one place. Rows with NaN or infinity become NaN.
    """
    check_distance(distance, "k-means")
    array: _Rows = points if hasattr(points, "__array_namespace__") else np.asarray(points)
    rescale = DISTANCES[distance]
    if rescale is None or array.ndim != 2 or not array.size:
        return array
    if not isinstance(array, np.ndarray):
        return rescale(array.astype(np.float32))
    found = np.empty(array.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # whoever takes the rows reports such values
        for begin in range(0, len(array), _PIECE_ROWS):
            piece = slice(begin, begin + _PIECE_ROWS)
            found[piece] = rescale(array[piece].astype(np.float32))
    return found
