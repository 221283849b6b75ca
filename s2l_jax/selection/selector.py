"""The one call that selects a subset."""

import dataclasses
import logging
import numbers
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

from s2l_jax.errors import InputError, nearest
from s2l_jax.selection.budget import Budget
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.known import Known
from s2l_jax.selection.method import METHODS, Method
from s2l_jax.selection.ranking import ranks
from s2l_jax.selection.result import LEFT_OUT, Selection, cluster_weights, notes_of_fewer
from s2l_jax.selection.suspects import RISING, UNLEARNT, least_learnt, rising, suspects
from s2l_jax.trajectories.load import Trajectories

_log = logging.getLogger(__name__)


def select(
    inputs: Float[np.ndarray, "n t"] | Trajectories | SelectionInputs,
    budget: int | float,
    *,
    unit: str = "examples",
    method: str = "s2l",
    num_clusters: int = 100,
    sources: Sequence[str] | Int[np.ndarray, " n"] | None = None,
    seed: int = 0,
    hidden_states: Float[np.ndarray, "n d"] | None = None,
    drop_unlearnt: float = 0.0,
    drop_rising: bool = False,
    **options: Any,
) -> Selection:
    """Choose a subset of N examples.

    Args:
      inputs: loss trajectories [N, T], columns in training order; what `load_trajectories` gives; or a
        `SelectionInputs` with whatever the method needs.
      budget: how many examples to take (above N all are taken, with a warning), what fraction of N
        (a float above 0 and below 1), or with unit="tokens" at most how many tokens: rows are taken in
        the method's order up to the first that no longer fits.
      unit: of the budget: "examples" or "tokens" (of prompt and response; needs num_tokens).
      method: a name in `METHODS`, or "module:function" for one of your own; "full" takes all whatever the
        budget.
      num_clusters: K, for methods that cluster.
      sources: each example's data source; the same as the field of `SelectionInputs`.
      seed: same inputs and seed, same subset.
      hidden_states: the same as the field of `SelectionInputs`.
      drop_unlearnt: the share of each source's examples that are left out beforehand: those that `suspects`
        finds most probably mislabelled, by their trajectories. 0: none.
      drop_rising: whether the examples whose loss does not fall from the first checkpoint to the last are
        left out beforehand.
      **options: of the method, `METHODS[method].options` has their defaults; see the method.

    Raises:
      InputError: a budget of 0 or less, an unknown method or option or a value of the wrong kind, a
        missing input (with the stage that makes it), a seed below 0, inputs of different lengths, NaN or
        infinite trajectories, a budget above what is left without the unlearnt, and what a method cannot
        work with: too few columns, rows that are all zeros.
    """
    asked = Budget(budget, unit)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, got {seed!r}")
    found = METHODS.find(method)
    features = options.get("features", found.options.get("features", ""))
    chosen = found.by_features(features).after_filter(drop_unlearnt, drop_rising)
    if isinstance(inputs, Trajectories):
        inputs = SelectionInputs(trajectories=inputs.losses, trajectory_steps=inputs.steps, ids=inputs.ids)
    if not isinstance(inputs, SelectionInputs):
        if isinstance(inputs, str | os.PathLike):
            raise InputError(f"select: {str(inputs)!r} is a path: give load_trajectories({str(inputs)!r}).")
        inputs = SelectionInputs(trajectories=inputs)
    given = {"sources": sources, "hidden_states": hidden_states}
    inputs = inputs.replace(**{name: value for name, value in given.items() if value is not None})
    for name, feature in chosen.features.items():
        if not feature.is_in(inputs):
            raise InputError(f"method {method!r} needs {name}, which is missing: {feature.source}")
    inputs = inputs.checked()
    size = inputs.num_examples
    if drop_unlearnt or drop_rising:
        common = {"method": method, "num_clusters": num_clusters, "seed": seed, **options}
        return _select_learnt(inputs, drop_unlearnt, drop_rising, asked, unit, common)
    if unit == "examples" and budget > size and not chosen.takes_all:
        _log.warning("budget %d is above the %d examples there are: all are taken", budget, size)
    settings = _settings(chosen, num_clusters, options)
    if unit == "tokens" and "cluster_small_sources" in settings:
        settings["cluster_small_sources"] = True  # which sources are taken whole is known only at the end
    count = size if chosen.takes_all else asked.most(size, inputs.num_tokens)
    try:
        chosen.check(Known(size, count, inputs.sources, inputs.steps), **settings)
    except InputError as error:  # what a run of the pipeline refuses; what cannot be done, the method refuses
        _log.warning("%s", error)
    ranking = chosen(inputs, count, int(seed), **settings)
    order, notes = ranking.order[:count], ranking.notes
    if not chosen.takes_all and (fitting := asked.cut(order, inputs.num_tokens)) < len(order):
        order, notes = order[:fitting], notes_of_fewer(notes, ranking.subset_notes)
    indices = np.sort(order).astype(np.int64)
    labels = np.zeros(size, np.int32) if ranking.labels is None else ranking.labels
    if ranking.stands_for_cluster:
        weights = cluster_weights(labels, indices)
    elif ranking.weights is not None:
        weights = np.asarray(ranking.weights, np.float32)[indices]
    else:
        weights = np.ones(len(indices), np.float32)
    trajectories = inputs.trajectories
    return Selection(
        indices=indices,
        labels=labels,
        centroids=ranking.centroids,
        cluster_sources=ranking.cluster_sources,
        weights=weights,
        ids=inputs.ids,
        sources=inputs.sources,
        method=method,
        budget=float(budget) if asked.is_fraction else int(budget),
        seed=int(seed),
        options=settings,
        unit=unit,
        nested=ranking.nested,
        weighted=ranking.stands_for_cluster,
        ranks=ranks(ranking.order, size),
        scores=None if ranking.scores is None else np.asarray(ranking.scores, np.float32),
        reasons=ranking.reasons,
        reason_of=ranking.reason_of,
        num_tokens=inputs.num_tokens,
        losses=None if trajectories is None else np.asarray(trajectories[:, -1], np.float32),
        notes=notes,
        subset_notes=ranking.subset_notes,
    )


def _settings(method: Method, num_clusters: int, options: dict[str, Any]) -> dict[str, Any]:
    """All options of the method: those given, the defaults for the rest."""
    for name in options:
        if name not in method.own_options:
            known = ", ".join(method.own_options) or "none"
            hint = nearest(name, method.own_options)
            raise InputError(f"unknown option of method {method.name!r}: {name!r}{hint} There are: {known}.")
    settings = method.options | options
    if "num_clusters" in settings:
        settings["num_clusters"] = num_clusters
    for name, option in method.own_options.items():
        option.check(settings[name], method.name)
    return settings


def select_from_slice(
    pool: SelectionInputs, rows: Int64[np.ndarray, "s"], inputs: SelectionInputs, **arguments: Any
) -> Selection:
    """A selection from some of the pool's rows, in terms of the pool: indices are its row numbers.

    Clusters, sources and weights are those of the slice; other rows have label -1. `rows` are those of the
    slice, sorted, and `inputs` what the method gets of them; for other arguments see `select`.
    """
    return _of_pool(select(inputs, **arguments), pool.checked(), rows)


def _select_learnt(
    inputs: SelectionInputs,
    share: float,
    drop_rising: bool,
    asked: Budget,
    unit: str,
    arguments: dict[str, Any],
) -> Selection:
    """A selection without the share of each source that is learnt least, and rows whose loss rises."""
    losses, size = inputs.trajectories, inputs.num_examples
    scores = suspects(losses, inputs.sources)
    unlearnt = least_learnt(scores, inputs.sources, inputs.ids, share)
    rises = rising(losses) & ~unlearnt if drop_rising else np.zeros(size, bool)
    left_out = unlearnt | rises
    rows = np.flatnonzero(~left_out)
    filters = ({"drop_unlearnt": share} if share else {}) | ({"drop_rising": True} if drop_rising else {})
    if not len(rows):
        raise InputError(f"{_said(filters)} leaves none of {size} examples")
    takes_all = METHODS.find(arguments["method"]).takes_all
    # A fraction is one of all examples, so that runs with and without the filter take as many.
    budget = max(1, asked.most(size, inputs.num_tokens)) if asked.is_fraction else asked.amount
    if unit == "examples" and not takes_all and len(rows) < budget <= size:
        raise InputError(
            f"{_said(filters)} leaves {len(rows)} of {size} examples, fewer than the budget of {budget}: "
            "lower one of them"
        )
    chosen = _of_pool(select(inputs.rows(rows), budget, unit=unit, **arguments), inputs, rows)
    reason_of = np.zeros(size, np.int64) if chosen.reason_of is None else chosen.reason_of.astype(np.int64)
    reason_of[unlearnt], reason_of[rises] = len(chosen.reasons), len(chosen.reasons) + 1
    found = np.full(size, np.nan, np.float32) if chosen.scores is None else chosen.scores
    return dataclasses.replace(
        chosen,
        options=chosen.options | filters,
        budget=float(asked.amount) if asked.is_fraction else chosen.budget,
        reasons=(*chosen.reasons, UNLEARNT, RISING),
        reason_of=reason_of,
        scores=np.where(left_out, scores, found),
        notes=chosen.notes | {LEFT_OUT: int(left_out.sum())},
    )


def _said(filters: dict[str, Any]) -> str:
    return " and ".join(f"{name}={value}" for name, value in filters.items())


def _of_pool(chosen: Selection, pool: SelectionInputs, rows: Int64[np.ndarray, "s"]) -> Selection:
    """A selection from some rows in terms of the pool."""

    def spread(values: Any, missing: float) -> Any:
        if values is None:
            return None
        whole = np.full(len(pool.ids), missing, values.dtype)
        whole[rows] = values
        return whole

    return dataclasses.replace(
        chosen,
        indices=rows[chosen.indices],
        labels=spread(chosen.labels.astype(np.int32), -1),
        ids=pool.ids,
        sources=pool.sources,
        ranks=spread(chosen.ranks, -1),
        scores=spread(chosen.scores, np.nan),
        reason_of=spread(chosen.reason_of, 0),
        num_tokens=pool.num_tokens,
        losses=spread(chosen.losses, np.nan),
    )
