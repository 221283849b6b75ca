"""What a run has to select from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

if TYPE_CHECKING:
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.training.run import Run
    from s2l_jax.trajectories.load import Trajectories


@dataclasses.dataclass(frozen=True)
class SelectionContext:
    """A run, its pool and its trajectories.

    Attributes:
      pool: with the token counts that budgets go by.
      trajectories: those that there are.
      rows: of the pool that the trajectories are of; None for all.
      pools: by the model that tokenised them.
    """

    run: Run
    pool: PreparedPool | None
    trajectories: Trajectories | None
    rows: Int64[np.ndarray, "s"] | None
    pools: dict[str, PreparedPool]
    _made: dict[str, Any] = dataclasses.field(default_factory=dict)

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made when the first selection asks for it and kept for the others."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
