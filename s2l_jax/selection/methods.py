"""The registry of selection methods, each with what it needs, and the two that need nothing."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

from s2l_jax.errors import InputError
from s2l_jax.selection.balanced import priorities
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.ranking import in_turns

_NO_CENTROIDS = np.zeros((0, 0), np.float32)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a method hands back: its order of preference, and how that came about.

    Attributes:
      order: distinct rows, the most wanted first, at least as many as were asked for.
      labels: the cluster of each row; None for no clusters.
      centroids: of the clusters.
      cluster_sources: the source of each cluster, where sources were clustered on their own.
      weighted: whether a chosen row stands for |C_k| / R_k rows.
      scores: what rows were ranked by, if by one number.
      reasons: what decided, in a few words, and `reason_of` which of them holds for each row
        (None: the first for all).
      notes: numbers for summary.json, such as an objective.
    """

    order: Int64[np.ndarray, " m"]
    labels: Int[np.ndarray, " n"] | None = None
    centroids: Float[np.ndarray, "k t"] = dataclasses.field(default_factory=lambda: _NO_CENTROIDS)
    cluster_sources: list[str] | None = None
    weighted: bool = False
    scores: Float[np.ndarray, " n"] | None = None
    reasons: tuple[str, ...] = ("",)
    reason_of: Int[np.ndarray, " n"] | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """A selection method.

    Attributes:
      name: what users call it.
      choose: (inputs, count, seed, **options) -> Choice, with inputs checked and count <= N.
      needs: the fields of `SelectionInputs` it cannot do without.
      options: its options with their defaults.
      takes_all: whatever the budget.
    """

    name: str
    choose: Callable[..., Choice]
    needs: frozenset[str]
    options: dict[str, Any]
    takes_all: bool = False


METHODS: dict[str, Method] = {}


def method(name: str, *, needs: Iterable[str] = (), takes_all: bool = False) -> Callable:
    """Enter a function into `METHODS`; its keyword arguments with defaults are its options."""

    def enter(choose: Callable[..., Choice]) -> Callable[..., Choice]:
        options = {
            parameter.name: parameter.default
            for parameter in inspect.signature(choose).parameters.values()
            if parameter.default is not parameter.empty
        }
        METHODS[name] = Method(name, choose, frozenset(needs), options, takes_all)
        return choose

    return enter


@method("random")
def random(inputs: SelectionInputs, count: int, seed: int, *, stratify_by: str = "none") -> Choice:
    """A random subset; with `stratify_by="source"` the budget is split evenly over the sources."""
    assert inputs.ids is not None
    priority = priorities(inputs.ids, seed)
    if not by_source(stratify_by):
        return Choice(np.argsort(priority, kind="stable"), reasons=("drawn at random",))
    if inputs.sources is None:
        raise InputError('random: stratify_by="source" needs sources, one name per example')
    strata = np.unique(inputs.sources, return_inverse=True)[1]
    return Choice(in_turns(strata, priority), reasons=("drawn at random from its source",))


@method("full", takes_all=True)
def full(inputs: SelectionInputs, count: int, seed: int) -> Choice:
    """All examples, whatever the budget."""
    return Choice(np.arange(inputs.num_examples), reasons=("all are",))


def by_source(stratify_by: str) -> bool:
    """Whether an option asks for strata.

    Raises:
      InputError: it says neither "none" nor "source".
    """
    if stratify_by not in ("none", "source"):
        raise InputError(f'stratify_by must be "none" or "source", got {stratify_by!r}')
    return stratify_by == "source"
