"""Choosing a subset of a pool: S2L and its baselines behind one call, and the files they leave."""

# Importing them enters their methods.
from s2l_jax.selection import s2l
from s2l_jax.selection.balanced import priorities
from s2l_jax.selection.baselines import by_loss, facility_location, less, longest, rds, semdedup
from s2l_jax.selection.baselines import diverse_evol as k_center
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
    "by_loss",
    "facility_location",
    "jaccard",
    "k_center",
    "less",
    "longest",
    "priorities",
    "rds",
    "s2l",
    "select",
    "semdedup",
    "write_subset",
]
