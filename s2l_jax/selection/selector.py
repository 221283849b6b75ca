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
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.methods import METHODS, Method
from s2l_jax.selection.result import Selection

_log = logging.getLogger(__name__)

# Where each input comes from in a run of the pipeline.
_STAGES = {
    "trajectories": "run the trajectories stage, or pass the losses as an [N, T] array",
    "hidden_states": "pass hidden_states, an [N, D] array",
    "sources": "run the pool stage, or pass sources, one name per example",
    "num_tokens": "run the pool stage, or pass SelectionInputs(num_tokens=...)",
}


def select(
    inputs: Float[np.ndarray, "n t"] | SelectionInputs,
    budget: int,
    *,
    method: str = "s2l",
    num_clusters: int = 100,
    sources: Sequence[str] | Int[np.ndarray, " n"] | None = None,
    seed: int = 0,
    hidden_states: Float[np.ndarray, "n d"] | None = None,
    **options: Any,
) -> Selection:
    """Choose min(budget, N) of N examples.

    Args:
      inputs: loss trajectories [N, T], columns in training order, or a `SelectionInputs` with
        whatever the method needs.
      budget: how many examples to take. Above N all are taken, with a warning.
      method: "s2l", "random" or "full" (which takes all); see `selection.methods`.
      num_clusters: K, for methods that cluster.
      sources: each example's data source; the same as the field of `SelectionInputs`.
      seed: same inputs and seed, same subset.
      hidden_states: the same as the field of `SelectionInputs`.
      **options: of the method. For "s2l": stratify_by ("source" or "none"), min_cluster_size,
        every; for "random": stratify_by.

    Raises:
      InputError: a budget of 0 or less, an unknown method or option, a missing input (with the
        stage that makes it), inputs of different lengths, NaN or infinite trajectories.
    """
    if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget <= 0:
        raise InputError(f"budget must be a whole number of at least 1, got {budget!r}")
    chosen_method = _find("method", method, METHODS)
    if not isinstance(inputs, SelectionInputs):
        inputs = SelectionInputs(trajectories=inputs)
    given = {"sources": sources, "hidden_states": hidden_states}
    inputs = dataclasses.replace(
        inputs, **{name: value for name, value in given.items() if value is not None}
    )
    for name in sorted(chosen_method.needs):
        if getattr(inputs, name) is None:
            raise InputError(f"method {method!r} needs {name}, which is missing: {_STAGES[name]}")
    inputs = inputs.checked()
    size = inputs.num_examples
    if budget > size and method != "full":
        _log.warning("budget %d is above the %d examples there are: all are taken", budget, size)
    settings = _settings(chosen_method, num_clusters, options)
    choice = chosen_method.choose(inputs, min(int(budget), size), seed, **settings)
    indices = np.flatnonzero(choice.taken)
    weights = np.ones(len(indices), np.float32)
    if choice.weighted:
        own = choice.labels[indices]
        weights = (np.bincount(choice.labels)[own] / np.bincount(own)[own]).astype(np.float32)
    assert inputs.ids is not None
    return Selection(
        indices=indices,
        labels=choice.labels,
        centroids=choice.centroids,
        cluster_sources=choice.cluster_sources,
        weights=weights,
        ids=inputs.ids,
        sources=None if inputs.sources is None else np.asarray(inputs.sources),
        method=method,
        budget=int(budget),
        seed=seed,
        options=settings,
    )


def _settings(method: Method, num_clusters: int, options: dict[str, Any]) -> dict[str, Any]:
    """All options of the method: those given, the defaults for the rest."""
    for name in options:
        _find(f"option of method {method.name!r}", name, method.options)
    settings = method.options | options
    return settings | {"num_clusters": num_clusters} if "num_clusters" in settings else settings


def _find(what: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        names = ", ".join(sorted(known)) or "none"
        raise InputError(f"unknown {what}: {name!r}{hint}; there are: {names}")
    return known[name]
