"""Choosing a subset of a pool: S2L and its baselines behind one call, and the files they leave."""

from s2l_jax.data.order import priorities
from s2l_jax.selection.export import write_subset
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import METHODS, Method, method
from s2l_jax.selection.ranking import Ranking
from s2l_jax.selection.result import Selection, jaccard
from s2l_jax.selection.selector import select

__all__ = [
    "METHODS",
    "Method",
    "Ranking",
    "Selection",
    "SelectionInputs",
    "jaccard",
    "method",
    "priorities",
    "select",
    "write_subset",
]
