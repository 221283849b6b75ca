"""The baseline that takes the longest responses."""

from s2l_jax.selection.balanced import priorities
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.methods import Choice, method
from s2l_jax.selection.ranking import by_score


@method("longest", needs={"response_tokens"})
def longest(inputs: SelectionInputs, count: int, seed: int) -> Choice:
    """The examples with the longest responses, in tokens (Zhao et al., arXiv 2402.04833)."""
    assert inputs.ids is not None
    assert inputs.response_tokens is not None
    order = by_score(inputs.response_tokens, priorities(inputs.ids, seed))
    return Choice(order, scores=inputs.response_tokens, reasons=("tokens of its response, most first",))
