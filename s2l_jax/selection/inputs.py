"""What selection methods may need, checked once for all of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int, UInt64

from s2l_jax.errors import InputError

_ROWS_AT_ONCE = 65_536


@dataclasses.dataclass(frozen=True)
class SelectionInputs:
    """What is known of N examples; a method names the fields it cannot do without.

    Attributes:
      trajectories: losses at the checkpoints, in training order.
      ids: stable example ids; row numbers where they are left out.
      sources: the name or number of each example's data source.
      hidden_states: one vector per example.
      num_tokens: length of each example's response.
    """

    trajectories: Float[np.ndarray, "n t"] | None = None
    ids: UInt64[np.ndarray, " n"] | None = None
    sources: Sequence[str] | Int[np.ndarray, " n"] | None = None
    hidden_states: Float[np.ndarray, "n d"] | None = None
    num_tokens: Int[np.ndarray, " n"] | None = None

    @property
    def num_examples(self) -> int:
        """N, from the first field that is given.

        Raises:
          InputError: no field is given.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                return len(value)
        raise InputError(
            "SelectionInputs is empty: give trajectories, or at least ids or sources, so that the "
            "number of examples is known"
        )

    def checked(self) -> Self:
        """The same fields as NumPy arrays, ids filled in.

        Raises:
          InputError: fields of different lengths or wrong rank, NaN or infinite values, ids that
            are not whole numbers of at least 0, sources that are neither all text nor all integers.
        """
        size = self.num_examples
        fields: dict[str, Any] = {"ids": np.arange(size, dtype=np.uint64)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if len(value) != size:
                raise InputError(
                    f"{field.name} has {len(value)} entries for {size} examples; every field "
                    f"needs one entry per example, in the same order"
                )
            fields[field.name] = _CHECKS[field.name](field.name, value)
        if size == 0:
            raise InputError("there are no examples to select from")
        return type(self)(**fields)


def _check_matrix(name: str, value: Any) -> np.ndarray:
    matrix = np.asarray(value)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.dtype.kind not in "fiu":
        raise InputError(
            f"{name} must be a number array [N, columns], got {matrix.dtype} of shape {matrix.shape}"
        )
    count, first = 0, -1
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        bad = np.flatnonzero(~np.isfinite(matrix[start : start + _ROWS_AT_ONCE]).all(1))
        if len(bad) and not count:
            first = start + int(bad[0])
        count += len(bad)
    if count:
        raise InputError(
            f"{name}: {count} of {len(matrix)} rows have NaN or infinite values, the first is row "
            f"{first}; drop these examples, or set the rows of examples without a loss to 0"
        )
    return matrix


def _check_integers(name: str, value: Any) -> np.ndarray:
    numbers = np.asarray(value)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError(f"{name} must be whole numbers [N], got {numbers.dtype} of shape {numbers.shape}")
    if numbers.dtype.kind == "i" and (numbers < 0).any():
        row = int(np.flatnonzero(numbers < 0)[0])
        raise InputError(f"{name} must be at least 0, got {numbers[row]} at row {row}")
    return numbers.astype(np.uint64 if name == "ids" else np.int64)


def _check_sources(name: str, value: Any) -> np.ndarray:
    sources = np.asarray(value)
    if sources.dtype == object and all(isinstance(source, str) for source in sources):
        sources = sources.astype(str)
    if sources.ndim != 1 or sources.dtype.kind not in "Uiu":
        raise InputError(
            f"{name} must be one name or number per example, all of one kind, got "
            f"{sources.dtype} of shape {sources.shape}"
        )
    return sources


_CHECKS = {
    "trajectories": _check_matrix,
    "ids": _check_integers,
    "sources": _check_sources,
    "hidden_states": _check_matrix,
    "num_tokens": _check_integers,
}
