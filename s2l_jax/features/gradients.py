"""Gradients for LESS: every example's, in adapters of the target warmed up on a part of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding
from s2l_jax.console import Progress
from s2l_jax.errors import DivergedError
from s2l_jax.features.arrays import names, numbers
from s2l_jax.features.feature import FEATURES, Feature
from s2l_jax.features.queries import QueryFeature, query_rows, tokenized_queries

if TYPE_CHECKING:
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.features.context import SelectionContext
    from s2l_jax.training.run import Run

FOLDER = "gradients"
_CHUNK = 1024  # examples whose gradients are stored together


class Gradients(Feature):
    """Each example's projected gradient at the checkpoints of the warm-up."""

    arrays: ClassVar = {"gradients": numbers("n c p")}
    source = (
        "run the selection stage with a pool and a target, or pass SelectionInputs(gradients=...), [N, C, P]"
    )

    def models(self, config: ConfigDict) -> tuple[str, ...]:
        """The target, whose adapters gradients are taken in."""
        return ("target",)

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        """The target must be there.

        Raises:
          InputError: it is not.
        """
        run.model("target")

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        """The target, and the warm-up."""
        return deciding(config, "gradients")

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        """The rows as tokens."""
        return {"pool.fingerprint": context.pools["target"].fingerprint}

    def part(self, config: ConfigDict, options: dict[str, Any]) -> str:
        """One for all selections."""
        return FOLDER

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        """Memory-mapped; see `pool_gradients`."""
        return {"gradients": pool_gradients(context.run, context.pools["target"])}


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

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        """Made anew in each sitting: they are few.

        Raises:
          InputError: a row without a response within the length limit.
        """
        return context.cached(
            "query gradients", lambda: _query_gradients(context.run, context.pools["target"])
        )


def pool_gradients(run: Run, pool: PreparedPool) -> Float[np.ndarray, "n c p"]:
    """Each row's Adam update at each checkpoint, projected and of length 1, in float16, memory-mapped.

    Made now if the workdir has none, and then stored in chunks as they are made: an interrupted run
    goes on after the last of them. (LESS compares directions alone, so that lengths need not be kept.)

    Raises:
      InputError: gradients made with other settings.
      DivergedError: gradients that are not finite.
    """
    from s2l_jax.data.batching import size_of
    from s2l_jax.features.compute.chunked_array import ChunkedArray
    from s2l_jax.features.compute.warm_up import adapted_target, example_gradients, warm_up
    from s2l_jax.models.parameters import num_trained
    from s2l_jax.models.weights import DTYPES
    from s2l_jax.parallel import processes
    from s2l_jax.records import Record
    from s2l_jax.training.flops import training_flops

    record = Record(
        run.workdir / FOLDER,
        FOLDER,
        deciding(run.config, "gradients", {"pool.fingerprint": pool.fingerprint}),
    )
    chunks = ChunkedArray(record.folder, "gradients.npy")
    if not record.done:
        model = adapted_target(run)
        frozen = model.initial_params(DTYPES[run.config.selection.gradients.dtype])
        checkpoints = warm_up(run, model, pool, record.folder, frozen)
        gradients = example_gradients(run, model)
        progress = Progress("gradients", len(pool), "rows")
        for start in range(0, len(pool), _CHUNK):
            if chunks.has(start):
                continue
            indices = np.arange(start, min(start + _CHUNK, len(pool)))
            found = [gradients.of(frozen, at.adapters, pool, indices, at.moments) for at in checkpoints]
            vectors = np.stack(found, axis=1)
            if not np.isfinite(vectors).all():
                row = start + int(np.flatnonzero(~np.isfinite(vectors).all((1, 2)))[0])
                raise DivergedError(f"the gradient of pool row {row} is not finite")
            lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
            vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
            if processes.is_writer():
                chunks.write(start, vectors.astype(np.float16))
            progress.update(int(indices[-1]) + 1)
        progress.close()
        columns = run.config.selection.gradients.dims or num_trained(model.trained_config)
        if processes.is_writer():
            chunks.join((len(pool), len(checkpoints), columns), np.float16)
        size = size_of(pool, np.arange(len(pool)))
        record.finish(
            {
                "examples": len(pool),
                "checkpoints": len(checkpoints),
                "flops": len(checkpoints) * training_flops(model.trained_config, size),
            }
        )
    return chunks.read()


def _query_gradients(run: Run, pool: PreparedPool) -> dict[str, Any]:
    from s2l_jax.features.compute.warm_up import adapted_target, example_gradients, warm_up
    from s2l_jax.models.weights import DTYPES

    model = adapted_target(run)
    rows = query_rows(run)
    examples = tokenized_queries(run, model, rows)
    frozen = model.initial_params(DTYPES[run.config.selection.gradients.dtype])
    checkpoints = warm_up(run, model, pool, run.workdir / FOLDER, frozen)
    gradients = example_gradients(run, model)
    indices = np.arange(len(rows))
    return {
        "query_gradients": np.stack(
            [gradients.of(frozen, at.adapters, examples, indices) for at in checkpoints], axis=1
        ),
        "query_tasks": [row.source for row in rows],
        "checkpoint_weights": np.array([at.learning_rate for at in checkpoints], np.float32),
    }


FEATURES.enter("gradients", Gradients())
FEATURES.enter("query_gradients", QueryGradients())
