"""SVAMP (arXiv 2103.07191): short word problems, varied so that shallow rules fail."""

from s2l_jax.evaluation.tasks.benchmark import Parsed, Row, benchmark, text_field
from s2l_jax.evaluation.tasks.exemplars import WORD_PROBLEMS


@benchmark(
    "svamp",
    answer_type="number",
    domain="out",
    size=1000,
    # The hub's copy has split the thousand rows; the benchmark is all of them.
    hub=("ChilleD/SVAMP[train]", "ChilleD/SVAMP[test]"),
    exemplars=WORD_PROBLEMS,
)
def svamp(row: Row) -> Parsed:
    question = f"{text_field(row, 'Body')} {text_field(row, 'Question')}"
    answer = text_field(row, "Answer").removesuffix(".0")
    return Parsed(question, answer, type=text_field(row, "Type", required=False))
