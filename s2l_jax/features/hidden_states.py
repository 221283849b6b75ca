"""Hidden states of the pool's rows and of the queries: made once for all selections, kept in the workdir."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from etils import epath
from jaxtyping import Float32
from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding
from s2l_jax.config.options import options_of
from s2l_jax.console import Progress
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.features.arrays import numbers
from s2l_jax.features.feature import FEATURES, Feature
from s2l_jax.features.queries import QueryFeature, query_rows, tokenized_queries

if TYPE_CHECKING:
    from s2l_jax.data.batching import Examples
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.features.context import SelectionContext
    from s2l_jax.models.architecture import DecoderConfig
    from s2l_jax.training.run import Run

FOLDER = "hidden_states"


@dataclasses.dataclass(frozen=True)
class StateSettings:
    """Which vectors.

    Attributes:
      pooling: how hidden states become one vector an example: "mean" over all tokens of prompt and response,
        "last" of them, or "weighted", the mean with weights that grow with the position (RDS+; Muennighoff,
        arXiv 2202.08904).
      layer: layers after which hidden states are taken, followed by the model's final norm; -1: all.
    """

    pooling: Literal["mean", "last", "weighted"] = "mean"
    layer: Annotated[int, Ge(-1)] = -1

    @classmethod
    def of(cls, options: dict[str, Any]) -> StateSettings:
        """Those that a selection run asks for."""
        return cls(options["pooling"], options["layer"])

    def check(self, config: DecoderConfig) -> None:
        """Check that a model has them.

        Raises:
          InputError: an unknown pooling, or a layer that it does not have.
        """
        for option in options_of(type(self)).values():
            option.check(getattr(self, option.name), "hidden states")
        if self.layer != -1 and not 1 <= self.layer <= config.num_layers:
            raise InputError(f"layer={self.layer}: the model has {config.num_layers}; use 1 to that, or -1")

    def deciding(self, config: ConfigDict) -> dict[str, Any]:
        """The settings that decide the vectors."""
        own = {f"hidden_states.{name}": value for name, value in dataclasses.asdict(self).items()}
        return deciding(config, "hidden_states", own)

    def part(self, config: ConfigDict) -> str:
        """Their folder in a workdir, such as hidden_states/target-mean or .../target-weighted-layer3."""
        layer = "" if self.layer == -1 else f"-layer{self.layer}"
        return f"{FOLDER}/{config.selection.states.model}-{self.pooling}{layer}"


class HiddenStates(Feature):
    """A vector for each row of the pool, by the untuned model that `selection.states.model` names."""

    arrays: ClassVar = {"hidden_states": numbers("n d")}
    source = "run the selection stage with a pool and a model, or pass hidden_states, [N, D]"
    options = StateSettings

    def models(self, config: ConfigDict) -> tuple[str, ...]:
        """The model itself."""
        return (config.selection.states.model,)

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        """The model must be there, with the layer.

        Raises:
          InputError: it is not.
        """
        StateSettings.of(options).check(run.model(run.config.selection.states.model).config)

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        """The model, and which vectors."""
        return StateSettings.of(options).deciding(config)

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        """The rows as tokens."""
        return {"pool.fingerprint": _pool(context).fingerprint}

    def part(self, config: ConfigDict, options: dict[str, Any]) -> str:
        """A folder for each pooling and layer."""
        return StateSettings.of(options).part(config)

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        """Memory-mapped; see `pool_states`."""
        return {"hidden_states": pool_states(context.run, _pool(context), StateSettings.of(options))}


class QueryStates(QueryFeature):
    """A vector for each row of `selection.queries`, made as those of the pool are."""

    arrays: ClassVar = {"query_states": numbers("q d")}
    source = "set selection.queries, or pass SelectionInputs(query_states=...), [Q, D]"
    options = StateSettings

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        """Made anew in each sitting: they are few.

        Raises:
          InputError: a row without a response within the length limit.
        """
        run, settings = context.run, StateSettings.of(options)

        def states() -> Float32[np.ndarray, "q d"]:
            examples = tokenized_queries(
                run, model := run.model(run.config.selection.states.model), query_rows(run)
            )
            chunks = model_states(run, model.config, model.initial_params, examples, settings)
            return np.concatenate([chunk for _, chunk in chunks])

        return {"query_states": context.cached(f"queries {settings.part(run.config)}", states)}


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
    from s2l_jax.data.batching import size_of
    from s2l_jax.features.compute.chunked_array import ChunkedArray
    from s2l_jax.parallel import processes
    from s2l_jax.records import Record
    from s2l_jax.training.flops import forward_flops

    part = settings.part(run.config)
    record = Record(
        run.workdir / part, part, settings.deciding(run.config) | {"pool.fingerprint": pool.fingerprint}
    )
    chunks = ChunkedArray(record.folder, "states.npy")
    if not record.done:
        model = run.model(run.config.selection.states.model)
        progress = Progress(f"hidden states {record.folder.name}", len(pool), "rows")
        for start, states in model_states(
            run, model.config, model.initial_params, pool, settings, skip=chunks.has
        ):
            if not np.isfinite(states).all():
                row = start + int(np.flatnonzero(~np.isfinite(states).all(1))[0])
                raise DivergedError(
                    f"{part}: the hidden states of pool row {row} are not finite; use "
                    "selection.states.dtype=float32."
                )
            if processes.is_writer():
                chunks.write(start, states)
            progress.update(start + len(states))
        progress.close()
        if processes.is_writer():
            chunks.join((len(pool), model.config.hidden_size), np.float32)
        size = size_of(pool, np.arange(len(pool)))
        record.finish({"examples": len(pool), "flops": forward_flops(model.config, size)})
    return chunks.read()


def model_states(
    run: Run, config: DecoderConfig, params: Any, examples: Examples, settings: StateSettings, **options: Any
) -> Any:
    """`pooled_states.hidden_states` as `selection.states` of the config asks for it.

    Args:
      run: the run.
      config: of the model.
      params: its parameters, or what gives them in a dtype.
      examples: tokenised.
      settings: which vectors.
      **options: more arguments of `hidden_states`.
    """
    from s2l_jax.features.compute.pooled_states import hidden_states
    from s2l_jax.models.weights import DTYPES

    asked = run.config.selection.states
    dtype = DTYPES[asked.dtype]
    return hidden_states(
        config,
        params(dtype) if callable(params) else params,
        examples,
        run.mesh,
        settings,
        max_length=run.config.tokenize.max_length,
        batch_tokens=asked.batch_tokens,
        dtype=dtype,
        attention=run.config.attention,
        **options,
    )


def _pool(context: SelectionContext) -> PreparedPool:
    return context.pools[context.run.config.selection.states.model]


FEATURES.enter("hidden_states", HiddenStates())
FEATURES.enter("query_states", QueryStates())
