"""The baseline that takes the longest responses."""

from s2l_jax.data.order import priorities
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking, by_score


@method("longest", needs=["response_tokens"])
def longest(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """The examples with the longest responses, in tokens (Zhao et al., arXiv 2402.04833)."""
    order = by_score(inputs.response_tokens, priorities(inputs.ids, seed))
    return Ranking(order, scores=inputs.response_tokens, reasons=("tokens of its response, most first",))
