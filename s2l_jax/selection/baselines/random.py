"""The baseline that every other is measured by: rows drawn at random."""

import numpy as np

from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import StratifyBy, method
from s2l_jax.selection.ranking import Ranking, round_robin


@method("random")
def random(inputs: SelectionInputs, count: int, seed: int, *, stratify_by: StratifyBy = "none") -> Ranking:
    """A random subset.

    Options:
      stratify_by: "source" splits the budget evenly over the sources before rows are drawn; "none" draws from
        the pool.

    Raises:
      InputError: strata are asked for, and there are no sources.
    """
    priority = priorities(inputs.ids, seed)
    if stratify_by == "none":
        return Ranking(np.argsort(priority, kind="stable"), reasons=("drawn at random",))
    if inputs.sources is None:
        raise InputError('random: stratify_by="source" needs sources, one name per example')
    strata = np.unique(inputs.sources, return_inverse=True)[1]
    return Ranking(round_robin(strata, priority), reasons=("drawn at random from its source",))
