"""All of the pool, which subsets are compared with."""

import numpy as np

from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking


@method("full", takes_all=True)
def full(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """All examples, whatever the budget."""
    return Ranking(np.arange(inputs.num_examples), reasons=("all are",))
