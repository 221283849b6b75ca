"""What selection methods may need, checked once for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from s2l_jax.errors import InputError, nearest
from s2l_jax.features.arrays import ArrayOf, counts, identities, names
from s2l_jax.features.feature import FEATURES

# What is known of any pool; the rest is what features give.
_OF_POOLS: dict[str, ArrayOf] = {"ids": identities(), "sources": names(), "num_tokens": counts()}


class SelectionInputs:
    """What is known of N examples; a method names the features it cannot do without.

    Args:
      **arrays: by name, None for what is not known. `ids`: stable example ids, whole numbers [N]; row
        numbers where they are left out. `sources`: the name or number of each example's data source [N].
        `num_tokens`: length of each example, prompt and response [N]. `trajectories`: losses at the
        checkpoints, in training order [N, T]. And every other array that a feature has
        (`FEATURES[name].arrays`): trajectory_steps [T], response_tokens [N], hidden_states [N, D],
        query_states [Q, D], gradients [N, C, P], query_gradients [Q, C, P], ...

    Raises:
      InputError: an array that no feature has.
    """

    ids: UInt64[np.ndarray, " n"]  # once `checked`
    sources: Any
    num_tokens: Int64[np.ndarray, " n"] | None

    def __init__(self, **arrays: Any):
        self._kinds = dict(_OF_POOLS)
        for feature in FEATURES.values():
            self._kinds |= feature.arrays
        for name in arrays:
            if name not in self._kinds:
                raise InputError(f"SelectionInputs: no input {name!r}{nearest(name, self._kinds)}")
        self._arrays = {name: value for name, value in arrays.items() if value is not None}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._kinds:
            raise AttributeError(f"SelectionInputs has no {name!r}")
        return self._arrays.get(name)

    @property
    def steps(self) -> list[int] | None:
        """Those of the columns of trajectories, 1 to T where they are not told; None without trajectories."""
        if self.trajectories is None:
            return None
        told = self.trajectory_steps
        return list(range(1, self.trajectories.shape[1] + 1)) if told is None else np.asarray(told).tolist()

    def replace(self, **arrays: Any) -> SelectionInputs:
        """The same with some arrays given, or given anew."""
        return SelectionInputs(**self._arrays | arrays)

    def rows(self, rows: Int64[np.ndarray, " s"]) -> SelectionInputs:
        """Those of some of the examples."""
        return SelectionInputs(
            **{
                name: np.asarray(value)[rows] if self._kinds[name].of_examples else value
                for name, value in self._arrays.items()
            }
        )

    @property
    def num_examples(self) -> int:
        """N, from the first array of the examples that is given.

        Raises:
          InputError: no such array is given.
        """
        for name, value in self._arrays.items():
            if self._kinds[name].of_examples:
                return len(value)
        raise InputError(
            "SelectionInputs is empty: give trajectories, or at least ids or sources, so that the "
            "number of examples is known"
        )

    def checked(self) -> SelectionInputs:
        """The same as NumPy arrays, ids filled in.

        Raises:
          InputError: arrays of different lengths or wrong rank, NaN or infinite values, ids that
            are not whole numbers of at least 0 or come twice, sources that are neither all text nor
            all integers.
        """
        size = self.num_examples
        found: dict[str, Any] = {"ids": np.arange(size, dtype=np.uint64)}
        lengths: dict[str, tuple[int, str]] = {}  # of each axis, and the array that it was first met in
        for name, value in self._arrays.items():
            kind = self._kinds[name]
            if kind.of_examples and len(value) != size:
                raise InputError(
                    f"{name} has {len(value)} entries for {size} examples; every field "
                    f"needs one entry per example, in the same order"
                )
            found[name] = kind.check(name, value, kind.axes)
            for axis, length in zip(kind.axes.split(), np.shape(found[name]), strict=False):
                known, other = lengths.setdefault(axis, (length, name))
                if length != known:
                    raise InputError(
                        f"{other} have shape {found[other].shape} and {name} {found[name].shape}: axis "
                        f"{axis.upper()!r} must be the same, as they must come from the same rows, model and "
                        "settings"
                    )
                if length == 0:
                    raise InputError(
                        "there are no examples to select from"
                        if axis == "n"
                        else f"{name} has no rows: give at least one example of the task"
                    )
        return SelectionInputs(**found)
