"""What selection methods may need beside ids and sources, and who provides it in a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from etils import epath
from jaxtyping import Int64
from ml_collections import ConfigDict

from s2l_jax.features.arrays import ArrayOf
from s2l_jax.registry import Registry

if TYPE_CHECKING:
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.training.run import Run
    from s2l_jax.trajectories.load import Trajectories


@dataclasses.dataclass(frozen=True)
class SelectionContext:
    """What a run has to select from: its pool and its trajectories.

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


class Feature:
    """One need of selection methods, and its provider in a run of the pipeline.

    To add one: a subclass in a file of `s2l_jax/features/`, and `FEATURES.enter(name, instance)`. What is
    heavy to import is imported in `make`: the config reads `options` from here.

    Attributes:
      arrays: what a method finds in its `SelectionInputs`, by name.
      source: where the arrays come from, for who calls `select` without them.
      options: a dataclass whose fields are options of the runs whose methods need the feature.
      needs_pool: whether there must be a pool.
      splits: whether the arrays of some of the rows are those of all rows, at these.
    """

    arrays: ClassVar[dict[str, ArrayOf]]
    source: str
    options: type | None = None
    needs_pool: bool = True
    splits: bool = True

    def is_in(self, inputs: Any) -> bool:
        """Whether `SelectionInputs` have what a method cannot do without: the first of `arrays`."""
        return getattr(inputs, next(iter(self.arrays))) is not None

    def models(self, config: ConfigDict) -> tuple[str, ...]:
        """The models ("proxy", "target") for which the pool must be tokenised."""
        return ()

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        """Find now what `make` would lack for the selection run `name`; an InputError says it."""

    def check_steps(self, steps: Sequence[int] | None, options: dict[str, Any]) -> None:
        """Find an option that does not fit the steps at which the proxy is swept, where these are known."""

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        """The settings of the config that decide the arrays (`config.deciding`)."""
        return {}

    def goes_by(self, config: ConfigDict, other: ConfigDict, options: dict[str, Any]) -> bool:
        """Whether the arrays are others with a config of another proxy, or of another seed."""
        return self.settings(other, options) != self.settings(config, options)

    def by_proxy(self, config: ConfigDict, options: dict[str, Any]) -> bool:
        """Whether the arrays come from the proxy's training."""
        return False

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        """What else decides them: the content of what they are made from."""
        raise NotImplementedError

    def part(self, config: ConfigDict, options: dict[str, Any]) -> str:
        """The part of the workdir that `make` leaves and whose cost is charged to selections; "": none."""
        return ""

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        """The arrays, for all rows of the pool; what takes long is kept in the workdir, and gone on with.

        Args:
          context: what there is to select from.
          options: of the selection run.
          folder: of the selection, for what is of no use to others.
        """
        raise NotImplementedError


FEATURES: Registry[Feature] = Registry("need of a selection method", Feature, ["s2l_jax.features"])
