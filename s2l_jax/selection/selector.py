"""The one call that selects a subset."""

import dataclasses
import difflib
import logging
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from s2l_jax.errors import InputError
from s2l_jax.selection.budget import Budget
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.methods import METHODS, Method
from s2l_jax.selection.ranking import places
from s2l_jax.selection.result import Selection, cluster_weights

_log = logging.getLogger(__name__)

_PASS = "or pass SelectionInputs({}=...)"
# Where each input comes from in a run of the pipeline.
_STAGES = {
    "trajectories": "run the trajectories stage, or pass the losses as an [N, T] array",
    "hidden_states": "run the selection stage with a pool and a model, or pass hidden_states, [N, D]",
    "gradients": f"run the selection stage with a pool and a target, {_PASS.format('gradients')}, [N, C, P]",
    "query_states": f"set selection.queries, {_PASS.format('query_states')}, [Q, D]",
    "query_gradients": f"set selection.queries, {_PASS.format('query_gradients')}, [Q, C, P]",
    "sources": "run the pool stage, or pass sources, one name per example",
    "num_tokens": f"run the pool stage with a model's tokeniser, {_PASS.format('num_tokens')}",
    "response_tokens": f"run the pool stage with a model's tokeniser, {_PASS.format('response_tokens')}",
}


def select(
    inputs: Float[np.ndarray, "n t"] | SelectionInputs,
    budget: int | float,
    *,
    unit: str = "examples",
    method: str = "s2l",
    num_clusters: int = 100,
    sources: Sequence[str] | Int[np.ndarray, " n"] | None = None,
    seed: int = 0,
    hidden_states: Float[np.ndarray, "n d"] | None = None,
    **options: Any,
) -> Selection:
    """Choose a subset of N examples.

    Args:
      inputs: loss trajectories [N, T], columns in training order, or a `SelectionInputs` with
        whatever the method needs.
      budget: how many examples to take (above N all are taken, with a warning), what fraction of N
        (a float above 0 and below 1), or with unit="tokens" at most how many tokens: rows are taken in
        the method's order up to the first that no longer fits.
      unit: of the budget: "examples" or "tokens" (of prompt and response; needs num_tokens).
      method: a name in `METHODS`; "full" takes all whatever the budget.
      num_clusters: K, for methods that cluster.
      sources: each example's data source; the same as the field of `SelectionInputs`.
      seed: same inputs and seed, same subset.
      hidden_states: the same as the field of `SelectionInputs`.
      **options: of the method, `METHODS[method].options` has their defaults; see the method.

    Raises:
      InputError: a budget of 0 or less, an unknown method or option or a value of the wrong kind, a
        missing input (with the stage that makes it), inputs of different lengths, NaN or infinite
        trajectories.
    """
    asked = Budget(budget, unit)
    if not _is_like(seed, 0):
        raise InputError(f"seed must be a whole number, got {seed!r}")
    chosen_method = _find("method", method, METHODS)
    if not isinstance(inputs, SelectionInputs):
        inputs = SelectionInputs(trajectories=inputs)
    given: dict[str, Any] = {"sources": sources, "hidden_states": hidden_states}
    inputs = dataclasses.replace(
        inputs, **{name: value for name, value in given.items() if value is not None}
    )
    for name in sorted(chosen_method.needs):
        embedded = name == "hidden_states" and inputs.embed is not None
        if getattr(inputs, name) is None and not embedded:
            raise InputError(f"method {method!r} needs {name}, which is missing: {_STAGES[name]}")
    inputs = inputs.checked()
    size = inputs.num_examples
    if unit == "examples" and budget > size and not chosen_method.takes_all:
        _log.warning("budget %d is above the %d examples there are: all are taken", budget, size)
    settings = _settings(chosen_method, num_clusters, options)
    if unit == "tokens" and "cluster_whole" in settings:
        settings["cluster_whole"] = True  # which sources are taken whole is known only at the end
    count = size if chosen_method.takes_all else asked.most(size, inputs.num_tokens)
    choice = chosen_method.choose(inputs, count, seed, **settings)
    if not chosen_method.takes_all:
        count = asked.cut(choice.order[:count], inputs.num_tokens)
    indices = np.sort(choice.order[:count]).astype(np.int64)
    labels = np.zeros(size, np.int32) if choice.labels is None else choice.labels
    trajectories = inputs.trajectories
    assert inputs.ids is not None
    return Selection(
        indices=indices,
        labels=labels,
        centroids=choice.centroids,
        cluster_sources=choice.cluster_sources,
        weights=cluster_weights(labels, indices) if choice.weighted else np.ones(count, np.float32),
        ids=inputs.ids,
        sources=None if inputs.sources is None else np.asarray(inputs.sources),
        method=method,
        budget=float(budget) if asked.is_fraction else int(budget),
        seed=seed,
        options=settings,
        unit=unit,
        weighted=choice.weighted,
        ranks=places(choice.order, size),
        scores=None if choice.scores is None else np.asarray(choice.scores, np.float32),
        reasons=choice.reasons,
        reason_of=choice.reason_of,
        num_tokens=None if inputs.num_tokens is None else np.asarray(inputs.num_tokens),
        losses=None if trajectories is None else np.asarray(trajectories[:, -1], np.float32),
        notes=choice.notes,
    )


def _settings(method: Method, num_clusters: int, options: dict[str, Any]) -> dict[str, Any]:
    """All options of the method: those given, the defaults for the rest."""
    for name in options:
        _find(f"option of method {method.name!r}", name, method.options)
    settings = method.options | options
    if "num_clusters" in settings:
        settings["num_clusters"] = num_clusters
    for name, default in method.options.items():
        if not _is_like(settings[name], default):
            kind = _KINDS[type(default)]
            raise InputError(f"{method.name}: {name} must be {kind}, got {settings[name]!r}")
    return settings


_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of an option's default."""
    if isinstance(value, bool | np.bool_) or isinstance(default, bool):
        return isinstance(value, bool | np.bool_) and isinstance(default, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    return isinstance(value, numbers.Integral if isinstance(default, int) else numbers.Real)


def _find(what: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        names = ", ".join(sorted(known)) or "none"
        raise InputError(f"unknown {what}: {name!r}{hint}; there are: {names}")
    return known[name]
