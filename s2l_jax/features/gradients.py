"""Gradients for LESS: every example's, in adapters of the target warmed up on a part of the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from etils import epath
from jaxtyping import Float16
from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding, untrained
from s2l_jax.features.arrays import names, numbers
from s2l_jax.features.feature import FEATURES, Feature, SelectionContext
from s2l_jax.features.queries import QueryFeature, query_rows, tokenized_queries

if TYPE_CHECKING:
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.features.compute.warm_up import WarmTarget
    from s2l_jax.training.run import Run

FOLDER = "gradients"
_CHUNK = 1024  # examples whose gradients are stored together


class Gradients(Feature):
    """Each example's Adam update at the checkpoints of the warm-up, projected; see `_updates`."""

    arrays: ClassVar = {"gradients": numbers("n c p")}
    source = (
        "run the selection stage with a pool and a target, or pass SelectionInputs(gradients=...), [N, C, P]"
    )

    def models(self, config: ConfigDict) -> tuple[str, ...]:
        return ("target",)

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        run.model("target")

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        return deciding(config, ("selection.gradients", *untrained("target"), "target.train", "seed"))

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        fingerprint = {"pool.fingerprint": context.pools["target"].fingerprint}
        return fingerprint | context.run.model_content("target")

    def part(self, config: ConfigDict, options: dict[str, Any]) -> str:
        return FOLDER

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        from s2l_jax.data.batching import size_of
        from s2l_jax.features.compute.chunked_array import ChunkedArray
        from s2l_jax.features.compute.warm_up import WarmTarget
        from s2l_jax.training.flops import training_flops

        run, pool = context.run, context.pools["target"]
        settings = self.settings(run.config, options) | self.content(context, options)
        array = ChunkedArray(run, FOLDER, "gradients.npy", pool, settings)
        if not array.done:
            target = WarmTarget(run, pool, run.workdir / FOLDER)
            checkpoints = len(target.checkpoints)
            flops = training_flops(target.config, size_of(pool, np.arange(len(pool))))
            array.make(
                _updates(target, pool, array.has),
                {"examples": len(pool), "checkpoints": checkpoints, "flops": checkpoints * flops},
                fix="use selection.gradients.dtype=float32, or lower its learning_rate",
            )
        return {"gradients": context.cached(FOLDER, array.read)}


class QueryGradients(QueryFeature):
    """The gradient of each query at the same checkpoints, its task (its source), and the checkpoints' rates.

    It is the gradient and not Adam's update that is taken of queries (LESS, section 4.2).
    """

    arrays: ClassVar = {
        "query_gradients": numbers("q c p"),
        "query_tasks": names("q"),
        "checkpoint_weights": numbers("c"),
    }
    source = "set selection.queries, or pass SelectionInputs(query_gradients=...), [Q, C, P]"
    of_pool = "gradients"

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        return super().content(context, options) | context.run.model_content("target")

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        return context.cached(
            "query gradients", lambda: _query_gradients(context.run, context.pools["target"])
        )


def _updates(
    target: WarmTarget, pool: PreparedPool, has: Callable[[int], bool]
) -> Iterator[tuple[int, Float16[np.ndarray, "c t p"]]]:
    """Adam's update for each row at each checkpoint, projected and of length 1: LESS compares directions."""
    for start in range(0, len(pool), _CHUNK):
        if not has(start):
            vectors = target.gradients(pool, np.arange(start, min(start + _CHUNK, len(pool))), updates=True)
            lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
            vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
            yield start, vectors.astype(np.float16)


def _query_gradients(run: Run, pool: PreparedPool) -> dict[str, Any]:
    from s2l_jax.features.compute.warm_up import WarmTarget

    rows = query_rows(run)
    examples = tokenized_queries(run, run.model("target"), rows)
    target = WarmTarget(run, pool, run.workdir / FOLDER)
    return {
        "query_gradients": target.gradients(examples, np.arange(len(rows)), updates=False),
        "query_tasks": [row.source for row in rows],
        "checkpoint_weights": np.array([at.learning_rate for at in target.checkpoints], np.float32),
    }


FEATURES.enter("gradients", Gradients())
FEATURES.enter("query_gradients", QueryGradients())
