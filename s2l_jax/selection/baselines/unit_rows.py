"""Rows as unit vectors, for the methods that compare directions."""

import numpy as np
from jaxtyping import Float, Float32

from s2l_jax.errors import InputError

_ROWS_AT_ONCE = 65_536


def unit_rows(rows: Float[np.ndarray, "n d"], name: str) -> Float32[np.ndarray, "n d"]:
    """The rows, each divided by its length.

    Raises:
      InputError: a row that is all zeros; names `name`, their number and the first.
    """
    unit = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        block = np.asarray(rows[part], np.float64)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        unit[part] = block / np.maximum(lengths, np.finfo(np.float64).tiny)
        if (zero := np.flatnonzero(lengths[:, 0] == 0)).size:
            raise InputError(
                f"{name}: row {start + zero[0]} is all zeros and has no direction; leave such examples out"
            )
    return unit
