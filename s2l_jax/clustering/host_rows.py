"""Rows left where they are in the host's memory, for fits that read them piece by piece."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from s2l_jax.clustering.distances import rescaled
from s2l_jax.clustering.rows import bad_rows_message, check_shape, check_weights
from s2l_jax.errors import InputError

_PIECE = 2**18  # rows looked at together


@dataclasses.dataclass(frozen=True)
class HostRows:
    """Rows as they are given, of which `piece` gives some, rescaled for their distance."""

    points: Float[np.ndarray, "n t"]
    weights: Float[np.ndarray, " n"] | None  # None: 1 each
    distance: str

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.points)

    def piece(self, which: slice | np.ndarray) -> Float[np.ndarray, "m t"]:
        """Some rows in float32, rescaled (see `distances.rescaled`)."""
        # Sums over columns follow the layout, and so would their rounding.
        return np.ascontiguousarray(
            rescaled(self.points[which].astype(np.float32, copy=False), self.distance)
        )


def prepare_host_rows(points: ArrayLike, weights: ArrayLike | None, distance: str) -> HostRows:
    """Rows checked as by `rows.prepare_rows`, and not copied where they are float32 in NumPy or on the CPU.

    Raises:
      InputError: as `rows.prepare_rows`.
    """
    array = np.asarray(check_shape(points))
    given = None if weights is None else check_weights(weights, len(array))
    count, first = 0, -1
    for start in range(0, len(array), _PIECE):
        with np.errstate(over="ignore"):  # too large for float32 is infinite
            piece = array[start : start + _PIECE].astype(np.float32, copy=False)
        # The largest number is finite only where all are; NaN is as large as any.
        if not (np.isfinite(piece.max()) and np.isfinite(piece.min())):
            bad = np.flatnonzero(~np.isfinite(piece).all(1))
            count, first = count + len(bad), start + int(bad[0]) if first < 0 else first
    if count:
        raise InputError(bad_rows_message(count, len(array), first))
    return HostRows(array, given, distance)


def on_one_cpu(points: ArrayLike) -> bool:
    """Whether rows are in the host's memory, and would be clustered there."""
    if not isinstance(points, jax.Array):
        return jax.default_backend() == "cpu"
    return (
        points.is_fully_addressable
        and {d.platform for d in points.devices()} == {"cpu"}
        and (len(points.devices()) == 1)
    )
