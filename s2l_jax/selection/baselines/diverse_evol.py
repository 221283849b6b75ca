"""k-center greedy on hidden states, in rounds of training, as DiverseEvol chooses."""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking


@method("diverse_evol", needs=["embeddings"])
def diverse_evol(
    inputs: SelectionInputs,
    count: int,
    seed: int,
    *,
    initial: Annotated[int, Ge(1)] = 100,
    rounds: Annotated[int, Ge(1)] = 1,
) -> Ranking:
    """The examples farthest from all that are chosen, one after the other (k-center greedy).

    DiverseEvol (Wu et al., arXiv 2311.08182, algorithm 1); a baseline of arXiv 2403.07384, section 5. It
    begins with random examples and goes in rounds: the model is trained on what is chosen, embeds the
    pool anew, and an equal part of the budget is chosen by the new embeddings. `inputs.embed` does the
    first two; without it `hidden_states` stay the same, and rounds change nothing.

    Options:
      initial: random examples to begin with (100 in the paper).
      rounds: times that the target is trained and the pool embedded anew; each chooses an equal part of the
        rest (10 in the paper).
    """
    from s2l_jax.selection.kernels.k_center import k_center

    order = np.argsort(priorities(inputs.ids, seed), kind="stable")[: min(initial, count)]
    for size in np.linspace(len(order), count, rounds + 1).round().astype(int)[1:]:
        states = inputs.hidden_states if inputs.embed is None else inputs.embed(order)
        states = np.zeros(0) if states is None else np.asarray(states)
        if states.ndim != 2 or len(states) != len(inputs.ids) or not np.isfinite(states).all():
            raise InputError(
                "diverse_evol: embeddings must be finite, and one vector an example, at each round"
            )
        order, radius = k_center(states, order, int(size))
    # Rounds are parts of the budget, so that what is embedded anew differs by it.
    nested = rounds == 1 or inputs.embed is None
    reasons = ("farthest from what was chosen before",)
    notes = {"radius": radius}
    return Ranking(order, nested=nested, reasons=reasons, notes=notes, subset_notes=("radius",))
