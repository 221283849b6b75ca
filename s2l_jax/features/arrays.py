"""What arrays that methods get must look like; each checks a value and gives it as NumPy has it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from s2l_jax.errors import InputError

_ROWS_AT_ONCE = 65_536


@dataclasses.dataclass(frozen=True)
class ArrayOf:
    """The kind of an array and its axes.

    Attributes:
      axes: a letter for each, such as "n d". Axes of one letter have one length in all arrays that a method
        gets; n is that of the examples.
      check: (name, value, axes) -> the array; raises InputError with the first bad value.
    """

    axes: str
    check: Callable[[str, Any, str], Any]

    @property
    def of_examples(self) -> bool:
        """Whether there is an entry for each example."""
        return self.axes[:1] == "n"


def numbers(axes: str) -> ArrayOf:
    """Finite numbers."""
    return ArrayOf(axes, _check_numbers)


def counts(axes: str = "n") -> ArrayOf:
    """Whole numbers of at least 0."""
    return ArrayOf(axes, lambda name, value, axes: _check_integers(name, value).astype(np.int64))


def identities(axes: str = "n") -> ArrayOf:
    """Distinct whole numbers of at least 0."""
    return ArrayOf(axes, _check_ids)


def names(axes: str = "n") -> ArrayOf:
    """A text for each entry, or a whole number for each."""
    return ArrayOf(axes, _check_names)


def function() -> ArrayOf:
    """No array but a function that gives one."""
    return ArrayOf("", lambda name, value, axes: value)


def _check_numbers(name: str, value: Any, axes: str) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != len(axes.split()) or 0 in array.shape[1:] or array.dtype.kind not in "fiu":
        shape = f"[{', '.join(axes.upper().split())}]"
        raise InputError(f"{name} must be a number array {shape}, got {array.dtype} of shape {array.shape}")
    count, first, place = 0, -1, ""
    for start in range(0, len(array), _ROWS_AT_ONCE):
        block = array[start : start + _ROWS_AT_ONCE]
        bad = np.flatnonzero(~np.isfinite(block.reshape(len(block), -1)).all(1))
        if len(bad) and not count:
            first, row = start + int(bad[0]), block[bad[0]]
            place = f", column {int(np.flatnonzero(~np.isfinite(row))[0])}" if row.ndim == 1 else ""
        count += len(bad)
    if count:
        way_out = ", or set the rows of examples without a loss to 0" if name == "trajectories" else ""
        raise InputError(
            f"{name}: {count} of {len(array)} rows have NaN or infinite values, the first is row "
            f"{first}{place} (from 0); drop these examples{way_out}"
        )
    return array


def _check_integers(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        hint = "; leave ids out to go by row numbers" if name == "ids" else ""
        raise InputError(f"{name} must be whole numbers [N], got {array.dtype} of shape {array.shape}{hint}")
    if array.dtype.kind == "i" and (array < 0).any():
        row = int(np.flatnonzero(array < 0)[0])
        raise InputError(f"{name} must be at least 0, got {array[row]} at row {row}")
    return array


def _check_ids(name: str, value: Any, axes: str) -> np.ndarray:
    ids = _check_integers(name, value).astype(np.uint64)
    ordered = np.sort(ids)
    if (repeated := ordered[1:][ordered[1:] == ordered[:-1]]).size:
        raise InputError(
            f"{name} must be distinct, and {len(np.unique(repeated))} come more than once; the first: "
            f"{', '.join(map(str, np.unique(repeated)[:5]))}"
        )
    return ids


def _check_names(name: str, value: Any, axes: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == object and all(isinstance(each, str) for each in array):
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "Uiu":
        odd = ""
        if array.ndim == 1:
            row = next((n for n, each in enumerate(array) if not isinstance(each, str)), 0)
            odd = f"; row {row} has {array[row]!r}"
        raise InputError(
            f"{name} must be one name or number per example, all of one kind, got {array.dtype} of shape "
            f"{array.shape}{odd}"
        )
    return array
