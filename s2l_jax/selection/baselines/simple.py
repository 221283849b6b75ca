"""Baselines without a score of their own: all rows, rows given, at random, and the longest responses."""

from typing import Any, Literal

import numpy as np

from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.selection.balanced import share_weights
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.known import Known, drawn_numbers
from s2l_jax.selection.method import StratifyBy, method
from s2l_jax.selection.ranking import Ranking, by_score, round_robin


@method("full", takes_all=True)
def full(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """All examples, whatever the budget."""
    return Ranking(np.arange(inputs.num_examples), reasons=("all are",))


@method("given", needs=["given_rows"], takes_all=True)
def given(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """All rows in `selection.path`, whatever the budget; in what order they were wanted is not known.

    They weigh what the selection that is there gave them, and the same in a list.
    """
    weights = None
    if inputs.given_weights is not None:
        weights = np.zeros(inputs.num_examples, np.float32)
        weights[inputs.given_rows] = inputs.given_weights
    order = np.sort(inputs.given_rows)
    return Ranking(order, nested=False, weights=weights, reasons=("in selection.path",))


@method("longest", needs=["response_tokens"])
def longest(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """The examples with the longest responses, in tokens (Zhao et al., arXiv 2402.04833)."""
    order = by_score(inputs.response_tokens, priorities(inputs.ids, seed))
    return Ranking(order, scores=inputs.response_tokens, reasons=("tokens of its response, most first",))


def _check_strata(known: Known, *, stratify_by: StratifyBy, **others: Any) -> None:
    if stratify_by == "source":
        known.check_sources("random")


@method("random", check=_check_strata)
def random(
    inputs: SelectionInputs,
    count: int,
    seed: int,
    *,
    stratify_by: StratifyBy = "none",
    source_shares: Literal["balanced", "proportional", "square_root"] = "balanced",
) -> Ranking:
    """A random subset.

    Options:
      stratify_by: "source" splits the budget evenly over the sources before rows are drawn; "none" draws from
        the pool.
      source_shares: how sources share it, with stratify_by="source": "balanced" evenly, "proportional" to
        their sizes, or in between by the "square_root" of them.

    Raises:
      InputError: strata are asked for, and there are no sources.
    """
    priority = priorities(inputs.ids, seed)
    if stratify_by == "none":
        return Ranking(np.argsort(priority, kind="stable"), reasons=("drawn at random",))
    if inputs.sources is None:
        raise InputError('random: stratify_by="source" needs sources, one name per example')
    names, codes = np.unique(inputs.sources, return_inverse=True)
    strata = drawn_numbers(names, seed)[codes]
    weights = None if source_shares == "balanced" else share_weights(np.bincount(strata), source_shares)
    return Ranking(round_robin(strata, priority, weights), reasons=("drawn at random from its source",))
