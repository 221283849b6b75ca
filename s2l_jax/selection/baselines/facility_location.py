"""Facility location on hidden states: the subset that is near to every example of the pool."""

from typing import Annotated, Literal

from annotated_types import Gt, Lt

from s2l_jax.selection.baselines.unit_rows import unit_rows
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking

_LAZY_UP_TO = 20_000  # examples; with "auto"


@method("facility_location", needs=["hidden_states"])
def facility_location(
    inputs: SelectionInputs,
    count: int,
    seed: int,
    *,
    evaluation: Literal["auto", "lazy", "stochastic"] = "auto",
    epsilon: Annotated[float, Gt(0), Lt(1)] = 0.05,
) -> Ranking:
    """The subset S that greedily maximises f(S) = sum over i of max over j in S of (1 + cos(i, j)) / 2.

    A baseline of arXiv 2403.07384, section 5, after Bhatt et al. (arXiv 2401.06692). f is monotone and
    submodular, so that greedy reaches 1 - 1/e of the best f (Nemhauser et al., 1978). Similarities are
    computed for a block of candidates at a time; N x N of them never exist.

    Options:
      evaluation: exact greedy, or by samples. "lazy" is greedy itself, evaluating again only candidates
        whose old gain, an upper bound, might still win (Minoux, 1978). "stochastic" looks in each step at a
        random sample of N / B x ln(1 / epsilon) candidates and reaches 1 - 1/e - epsilon in expectation
        (Mirzasoleiman et al., arXiv 1409.7938, algorithm 1); it evaluates N ln(1 / epsilon) candidates in
        all. (B is the most examples that a token budget can come to; where it comes to fewer, epsilon is
        larger.)
        "auto" is lazy up to 20,000 examples, else stochastic.
      epsilon: shortfall of stochastic greedy: how far below greedy it may end, in expectation.
    """
    from s2l_jax.selection.kernels.facility import Objective, lazy_greedy, stochastic_greedy

    rows = unit_rows(inputs.hidden_states, "hidden_states")
    if evaluation == "auto":
        evaluation = "lazy" if len(rows) <= _LAZY_UP_TO else "stochastic"
    objective = Objective(rows)
    if evaluation == "lazy":
        order = lazy_greedy(objective, count)
    else:
        order = stochastic_greedy(objective, count, epsilon=epsilon, seed=seed)
    notes = {"objective": objective.value / len(rows), "evaluation": evaluation}
    # The samples of stochastic greedy are larger for a smaller budget.
    nested = evaluation == "lazy"
    reasons = ("the pool's similarity to the subset rose most",)
    return Ranking(order, nested=nested, reasons=reasons, notes=notes, subset_notes=("objective",))
