"""Hidden states of the pool's rows and of the queries: made once for all selections, kept in the workdir."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from etils import epath
from jaxtyping import Float32
from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding, untrained
from s2l_jax.features.arrays import numbers
from s2l_jax.features.compute.state_settings import StateSettings
from s2l_jax.features.feature import FEATURES, Feature, SelectionContext
from s2l_jax.features.queries import QueryFeature, query_rows, tokenized_queries

if TYPE_CHECKING:
    from s2l_jax.data.batching import Examples
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.models.architecture import DecoderConfig
    from s2l_jax.training.run import Run


class HiddenStates(Feature):
    """A vector for each row of the pool, by the untuned model that `selection.states.model` names."""

    arrays: ClassVar = {"hidden_states": numbers("n d")}
    source = "run the selection stage with a pool and a model, or pass hidden_states, [N, D]"
    options = StateSettings

    def models(self, config: ConfigDict) -> tuple[str, ...]:
        return (config.selection.states.model,)

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        StateSettings.of(options).check(run.model(run.config.selection.states.model).config)

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        own = dataclasses.asdict(StateSettings.of(options))
        model = config.selection.states.model
        seed = ("seed",) if config[model].init == "random" else ()
        reads = ("selection.states", *untrained(model), *seed)
        return deciding(config, reads, {f"hidden_states.{name}": own[name] for name in own})

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        return {"pool.fingerprint": _pool(context).fingerprint} | _model_content(context.run)

    def part(self, config: ConfigDict, options: dict[str, Any]) -> str:
        """Such as hidden_states/target-mean or .../target-weighted-layer3."""
        layer = "" if options["layer"] == -1 else f"-layer{options['layer']}"
        return f"hidden_states/{config.selection.states.model}-{options['pooling']}{layer}"

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        from s2l_jax.data.batching import size_of
        from s2l_jax.features.compute.chunked_array import ChunkedArray
        from s2l_jax.training.flops import forward_flops

        run, pool = context.run, _pool(context)
        part, settings = self.part(run.config, options), self.settings(run.config, options)
        array = ChunkedArray(run, part, "states.npy", pool, settings | _model_content(run))
        if not array.done:
            model = run.model(run.config.selection.states.model)
            which = StateSettings.of(options)
            flops = forward_flops(model.config, size_of(pool, np.arange(len(pool))))
            array.make(
                model_states(run, model.config, model.initial_params, pool, which, skip=array.has),
                {"examples": len(pool), "flops": flops},
                fix="use selection.states.dtype=float32",
            )
        return {"hidden_states": context.cached(part, array.read)}


class QueryStates(QueryFeature):
    """A vector for each row of `selection.queries`; made anew in each sitting: they are few."""

    arrays: ClassVar = {"query_states": numbers("q d")}
    source = "set selection.queries, or pass SelectionInputs(query_states=...), [Q, D]"
    options = StateSettings

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        return super().content(context, options) | _model_content(context.run)

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        run, settings = context.run, StateSettings.of(options)

        def states() -> Float32[np.ndarray, "q d"]:
            model = run.model(run.config.selection.states.model)
            examples = tokenized_queries(run, model, query_rows(run))
            chunks = model_states(run, model.config, model.initial_params, examples, settings)
            return np.concatenate([chunk for _, chunk in chunks])

        return {"query_states": context.cached(f"query states {settings}", states)}


def model_states(
    run: Run, config: DecoderConfig, params: Any, examples: Examples, settings: StateSettings, **skip: Any
) -> Iterator[tuple[int, Float32[np.ndarray, "c d"]]]:
    """`pooled_states.hidden_states` as the config asks for it; `params` may be what gives them in a dtype."""
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
        **skip,
    )


def _model_content(run: Run) -> dict[str, Any]:
    return run.model_content(run.config.selection.states.model)


def _pool(context: SelectionContext) -> PreparedPool:
    return context.pools[context.run.config.selection.states.model]


FEATURES.enter("hidden_states", HiddenStates())
FEATURES.enter("query_states", QueryStates())
