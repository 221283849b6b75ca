"""How a run's rows are packed, laid out once for all meshes that have as many row groups."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import numpy as np

from s2l_jax.data.batching import Size, size_of
from s2l_jax.data.packing import PackedRows
from s2l_jax.forecast.programs import described
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import attend
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.training.run import Run, make_batches

T = TypeVar("T")


class Layouts:
    """What was laid out for one config and its pools: it takes seconds, and many meshes share it."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` makes, or made for the same key."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of a training run.

    Attributes:
      rows: of the largest shape, described, those of all row groups.
      size: of a step on average.
      mean_rows: of a microbatch and group.
    """

    rows: PackedRows
    size: Size
    mean_rows: float


def laid_out(
    run: Run, what: str, pool: Any, subset: np.ndarray, model: DecoderConfig, steps: int, layouts: Layouts
) -> Steps:
    """The steps of the "proxy" or "target" on a subset of a pool."""
    train = run.config[what].train

    def lay_out() -> Steps:
        batches = make_batches(run, pool, subset, np.ones(len(subset), np.float32), model, train, steps)
        rows = jax.tree.map(described, batches.empty(batches.planned_shapes[-1]))
        # Every example comes once an epoch: a mean step is a share of all of them.
        share = train.batch_size / len(subset)
        prefix = 0 if rows.prefix is None else rows.prefix.shape[-1]
        whole = size_of(pool, subset, prefix, times=round(train.accumulation / share))
        mean = Size(*(round(n * share) for n in dataclasses.astuple(whole)))
        return Steps(rows, mean, batches.mean_rows)

    fused = attention_on(run.mesh, model, DTYPES[train.dtype], run.config.attention) is not attend
    return layouts.once((run.key_of(what), len(subset), row_groups(run.mesh), fused), lay_out)
