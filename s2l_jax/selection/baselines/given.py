"""A subset that was chosen elsewhere."""

import numpy as np

from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking


@method("given", needs=["given_rows"], takes_all=True)
def given(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """All rows in `selection.path`, whatever the budget; in what order they were wanted is not known."""
    return Ranking(np.sort(inputs.given_rows), nested=False, reasons=("in selection.path",))
