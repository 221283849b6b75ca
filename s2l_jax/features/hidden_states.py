"""Hidden states of the pool's rows and of the queries: made once for all selections, kept in the workdir."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from etils import epath
from jaxtyping import Float32
from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding
from s2l_jax.features import tuned_weights
from s2l_jax.features.arrays import numbers
from s2l_jax.features.compute.state_settings import StateSettings
from s2l_jax.features.feature import FEATURES, Feature, SelectionContext
from s2l_jax.features.queries import QueryFeature, query_rows, tokenized_queries
from s2l_jax.trajectories.cadence import is_checkpoint

if TYPE_CHECKING:
    from s2l_jax.data.batching import Examples
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.models.architecture import DecoderConfig
    from s2l_jax.models.parameters import Params
    from s2l_jax.training.run import Run


class HiddenStates(Feature):
    """A vector for each row of the pool, by the model that `selection.states.model` names."""

    arrays: ClassVar = {"hidden_states": numbers("n d")}
    source = "run the selection stage with a pool and a model, or pass hidden_states, [N, D]"
    options = StateSettings

    def models(self, config: ConfigDict) -> tuple[str, ...]:
        return (config.selection.states.model,)

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        StateSettings.of(options).check(run.model(run.config.selection.states.model).config)
        tuned_weights.check(run, options["checkpoint"], f"selection.runs.{name}")

    def check_steps(self, steps: Sequence[int] | None, options: dict[str, Any]) -> None:
        tuned_weights.check_steps(options["checkpoint"], steps)

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        own = dataclasses.asdict(StateSettings.of(options))
        settings = deciding(
            config, ("selection.states",), {f"hidden_states.{name}": own[name] for name in own}
        )
        return settings | tuned_weights.settings_of(config, options["checkpoint"])

    def by_proxy(self, config: ConfigDict, options: dict[str, Any]) -> bool:
        return is_checkpoint(options["checkpoint"])

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        weights = tuned_weights.content_of(context.run, options["checkpoint"])
        return {"pool.fingerprint": _pool(context).fingerprint} | weights

    def part(self, config: ConfigDict, options: dict[str, Any]) -> str:
        """Such as hidden_states/target-mean, .../target-weighted-layer3 or .../proxy-mean-step500."""
        layer = "" if options["layer"] == -1 else f"-layer{options['layer']}"
        weights = tuned_weights.label_of(options["checkpoint"])
        return f"hidden_states/{config.selection.states.model}-{options['pooling']}{layer}{weights}"

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        from s2l_jax.data.batching import size_of
        from s2l_jax.features.compute.chunked_array import ChunkedArray
        from s2l_jax.training.flops import forward_flops

        run, pool = context.run, _pool(context)
        part, settings = self.part(run.config, options), self.settings(run.config, options)
        weights = tuned_weights.content_of(run, options["checkpoint"])
        array = ChunkedArray(run, part, "states.npy", pool, settings | weights)
        if not array.done:
            model = run.model(run.config.selection.states.model)
            which = StateSettings.of(options)
            flops = forward_flops(model.config, size_of(pool, np.arange(len(pool))))
            array.make(
                model_states(run, model.config, _weights(run, which), pool, which, skip=array.has),
                {"examples": len(pool), "flops": flops},
                fix="use selection.states.dtype=float32",
            )
        return {"hidden_states": context.cached(part, array.read)}


class QueryStates(QueryFeature):
    """A vector for each row of `selection.queries`; made anew in each sitting: they are few."""

    arrays: ClassVar = {"query_states": numbers("q d")}
    source = "set selection.queries, or pass SelectionInputs(query_states=...), [Q, D]"
    options = StateSettings
    of_pool = "hidden_states"

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        weights = tuned_weights.content_of(context.run, options["checkpoint"])
        return super().content(context, options) | weights

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        run, settings = context.run, StateSettings.of(options)

        def states() -> Float32[np.ndarray, "q d"]:
            model = run.model(run.config.selection.states.model)
            examples = tokenized_queries(run, model, query_rows(run))
            chunks = model_states(run, model.config, _weights(run, settings), examples, settings)
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


def _weights(run: Run, settings: StateSettings) -> Callable[[Any], Params]:
    return functools.partial(tuned_weights.load, run, settings.checkpoint)


def _pool(context: SelectionContext) -> PreparedPool:
    return context.pools[context.run.config.selection.states.model]


FEATURES.enter("hidden_states", HiddenStates())
FEATURES.enter("query_states", QueryStates())
