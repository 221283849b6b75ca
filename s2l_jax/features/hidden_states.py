"""Hidden states for the selection methods that go by them: made once for all, kept in the workdir."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from s2l_jax.console import Progress
from s2l_jax.data.batching import Examples, size_of
from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, tokenize
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.features.chunked_array import Parts
from s2l_jax.features.pooled_states import StateSettings, hidden_states
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.records import Record
from s2l_jax.training.flops import forward_flops
from s2l_jax.training.models import Model
from s2l_jax.training.run import Run

FOLDER = "hidden_states"


def wanted_states(entry: dict[str, Any]) -> StateSettings:
    """The vectors that a selection run goes by; "auto" is the pooling that its method was published with."""
    pooling = entry["pooling"]
    if pooling == "auto":
        pooling = "weighted" if entry["method"] == "rds" else "mean"
    return StateSettings(pooling, entry["layer"])


def part_name(run: Run, settings: StateSettings) -> str:
    """The folder of some vectors, such as target-mean or target-weighted-layer3."""
    layer = "" if settings.layer == -1 else f"-layer{settings.layer}"
    return f"{run.config.selection.states.model}-{settings.pooling}{layer}"


def made_with(run: Run, pool: PreparedPool, settings: StateSettings) -> dict[str, Any]:
    """What decides the vectors."""
    model = run.config[run.config.selection.states.model]
    decisive: dict[str, Any] = {name: model[name] for name in ("checkpoint", "init", "model_config")}
    if model.init == "random":
        decisive["seed"] = run.config.seed
    return {
        "model": decisive,
        "pool": pool.fingerprint,
        "pooling": settings.pooling,
        "layer": settings.layer,
        "dtype": run.config.selection.states.dtype,
    }


def pool_states(run: Run, pool: PreparedPool, settings: StateSettings) -> Float32[np.ndarray, "n d"]:
    """A vector for every row of the pool, memory-mapped; made now if the workdir has none.

    Chunks of rows are stored as they are made, and an interrupted run goes on after the last of them.

    Args:
      run: the run.
      pool: tokenised for the model.
      settings: which vectors.

    Raises:
      InputError: settings that do not fit the model, or vectors of that name made otherwise.
      DivergedError: vectors that are not finite.
    """
    name = part_name(run, settings)
    record = Record(run.workdir / FOLDER / name, f"{FOLDER}/{name}", made_with(run, pool, settings))
    parts = Parts(record.folder, "states.npy")
    if not record.done:
        model = run.model(run.config.selection.states.model)
        settings.check(model.config)
        progress = Progress(f"hidden states {name}", len(pool), "rows")
        for start, states in _states(run, model, pool, settings, parts.has):
            if not np.isfinite(states).all():
                row = start + int(np.flatnonzero(~np.isfinite(states).all(1))[0])
                raise DivergedError(
                    f"hidden states {name}: those of pool row {row} are not finite; use "
                    "selection.states.dtype=float32."
                )
            if processes.is_writer():
                parts.write(start, states)
            progress.update(start + len(states))
        progress.close()
        if processes.is_writer():
            parts.join((len(pool), model.config.hidden_size), np.float32)
        size = size_of(pool, np.arange(len(pool)))
        record.finish({"examples": len(pool), "flops": forward_flops(model.config, size)})
    return parts.read()


def query_states(run: Run, settings: StateSettings) -> Float32[np.ndarray, "q d"]:
    """A vector for each row of selection.queries.

    Raises:
      InputError: no such file, or a row without a response within the length limit.
    """
    model = run.model(run.config.selection.states.model)
    settings.check(model.config)
    examples = tokenized_queries(run, model, query_rows(run))
    return np.concatenate([states for _, states in _states(run, model, examples, settings)])


def query_rows(run: Run) -> list[PoolRow]:
    """The rows of the task that the subset is for.

    Raises:
      InputError: selection.queries is empty, or cannot be read.
    """
    asked = run.config.selection
    if not asked.queries:
        raise InputError(
            "selection.queries is empty: name a file with a few rows of the task that the subset is for, in "
            "the pool's schema, but not those that evaluate it."
        )
    return list(
        read_rows(asked.queries, limit=asked.query_limit, fields=FieldMap(**run.config.pool.fields.to_dict()))
    )


def tokenized_queries(run: Run, model: Model, rows: list[PoolRow]) -> TokenizedList:
    """Query rows as tokens, by the pool's settings.

    Raises:
      InputError: a row whose response is cut away.
    """
    asked = run.config.tokenize
    texts = [render(asked.prompt, row, model.tokenizer) for row in rows]
    examples = tokenize(
        model.tokenizer, texts, max_length=asked.max_length, boundary=asked.boundary, template=asked.prompt
    )
    for row, example in zip(rows, examples, strict=True):
        if not example.has_response:
            raise InputError(
                f"{row.place}: no response is left of this query within tokenize.max_length="
                f"{asked.max_length}"
            )
    return TokenizedList(examples)


def _states(
    run: Run,
    model: Model,
    examples: Examples,
    settings: StateSettings,
    skip: Callable[[int], bool] = lambda start: False,
) -> Iterator[tuple[int, Float32[np.ndarray, "c d"]]]:
    asked = run.config.selection.states
    dtype = DTYPES[asked.dtype]
    return hidden_states(
        model.config,
        model.initial_params(dtype),
        examples,
        run.mesh,
        settings,
        max_length=run.config.tokenize.max_length,
        batch_tokens=asked.batch_tokens,
        dtype=dtype,
        attention=run.config.attention,
        skip=skip,
    )
