"""Distances other than the squared Euclidean one, as that of rescaled rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from s2l_jax.errors import InputError

DISTANCES = ("euclidean", "cosine", "correlation")
_ROUNDING = 1e-6  # a centred row this much shorter than the row itself is a constant one


def rescaled(points: ArrayLike, distance: str) -> jax.Array | Float[np.ndarray, "n t"]:
    """Rows [N, T] among which squared Euclidean distance orders pairs as `distance` does.

    For "cosine" rows are brought to length 1: |a - b|^2 is then 2 (1 - cos(a, b)). For "correlation"
    their own mean is taken off before, which leaves the shape of a trajectory and not its level or
    scale. Rows of zeros, and for "correlation" constant rows, have no direction: they become zeros,
    all in one place. Rows with NaN or infinity become NaN.

    Raises:
      InputError: an unknown distance.
    """
    if distance not in DISTANCES:
        raise InputError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
    array = points if isinstance(points, jax.Array) else np.asarray(points)
    if distance == "euclidean" or array.ndim != 2 or not array.size:
        return array
    xp = jnp if isinstance(array, jax.Array) else np
    with np.errstate(over="ignore", invalid="ignore"):  # whoever takes the rows reports such values
        array = array.astype(np.float32)
        largest = xp.abs(array).max(1, keepdims=True)
        array = array / xp.where(largest > 0, largest, 1)  # so that squares neither overflow nor vanish
        length = xp.sqrt(xp.square(array).sum(1, keepdims=True))
        if distance == "correlation":
            array = array - array.mean(1, keepdims=True)
            whole, length = length, xp.sqrt(xp.square(array).sum(1, keepdims=True))
            length = xp.where(length <= _ROUNDING * whole, 0, length)
        # Comparisons that NaN fails, so that it stays.
        return xp.where(length == 0, 0, array / xp.where(length == 0, 1, length))
