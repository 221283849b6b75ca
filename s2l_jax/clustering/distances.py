"""Distances other than the squared Euclidean one, as that of rescaled rows."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from s2l_jax.errors import InputError

_Rows = Any  # NumPy's or JAX's, [N, T]; JAX is not imported, as the config reads the names from here

_ROUNDING = 1e-6  # a centred row this much shorter than the row itself is a constant one
_PIECE_ROWS = 2**18  # rows in NumPy rescaled together


def _cosine(rows: _Rows) -> _Rows:
    rows = _scaled_down(rows)
    return _unit(rows, _length(rows))


def _correlation(rows: _Rows) -> _Rows:
    rows = _scaled_down(rows)
    centred = rows - rows.mean(1, keepdims=True)
    length = _length(centred)
    return _unit(centred, _numpy_of(rows).where(length <= _ROUNDING * _length(rows), 0, length))


# Name -> the rescaling, in float32, after which squared Euclidean distance orders pairs as that distance
# does; None: the rows as they are. Whatever offers a choice of distances reads it here.
DISTANCES: Mapping[str, Callable[[_Rows], _Rows] | None] = {
    "euclidean": None,
    "cosine": _cosine,
    "correlation": _correlation,
}


def check_distance(distance: str, where: str) -> None:
    """
    Raises:
      InputError: there is no such distance.
    """
    if distance not in DISTANCES:
        raise InputError(f"{where}: distance must be one of {', '.join(DISTANCES)}, got {distance!r}")


def rescaled(points: ArrayLike, distance: str) -> _Rows:
    """Rows [N, T] among which squared Euclidean distance orders pairs as `distance` does.

    For "cosine" rows are brought to length 1: |a - b|^2 is then 2 (1 - cos(a, b)). For "correlation"
    their own mean is taken off before, which leaves the shape of a trajectory and not its level or
    scale. Rows of zeros, and for "correlation" constant rows, have no direction: they become zeros,
    all in one place. Rows with NaN or infinity become NaN.

    Raises:
      InputError: an unknown distance.
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


def _scaled_down(rows: _Rows) -> _Rows:
    """Each row by its largest value, so that squares neither overflow nor vanish."""
    xp = _numpy_of(rows)
    largest = xp.abs(rows).max(1, keepdims=True)
    return rows / xp.where(largest > 0, largest, 1)


def _length(rows: _Rows) -> _Rows:
    xp = _numpy_of(rows)
    return xp.sqrt(xp.square(rows).sum(1, keepdims=True))


def _unit(rows: _Rows, length: _Rows) -> _Rows:
    xp = _numpy_of(rows)
    # Comparisons that NaN fails, so that it stays.
    return xp.where(length == 0, 0, rows / xp.where(length == 0, 1, length))


def _numpy_of(rows: _Rows) -> Any:
    return rows.__array_namespace__()
