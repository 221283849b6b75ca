"""Choosing a subset of a pool: S2L and its baselines behind one call, and the files they leave."""

from s2l_jax.selection.balanced import priorities
from s2l_jax.selection.export import write_subset
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.methods import METHODS, Method
from s2l_jax.selection.overlap import jaccard
from s2l_jax.selection.result import Selection
from s2l_jax.selection.selector import select

__all__ = [
    "METHODS",
    "Method",
    "Selection",
    "SelectionInputs",
    "jaccard",
    "priorities",
    "select",
    "write_subset",
]
