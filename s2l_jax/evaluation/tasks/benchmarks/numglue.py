"""NumGLUE (arXiv 2204.05660): eight kinds of questions about numbers, in MAmmoTH's file."""

from s2l_jax.evaluation.tasks.benchmark import Exemplar, Parsed, Row, benchmark, question_and_answer
from s2l_jax.evaluation.tasks.exemplars import WORD_PROBLEMS

_CHOICE = Exemplar(
    "A marble rolls 40 cm on carpet and 95 cm on tile. Which surface slows it more? \n"
    "Answer Choices: (A) tile (B) carpet",
    "It comes to rest sooner on carpet, since 40 is less than 95, so carpet slows it more. The answer is B",
    "distance = {'A': 95, 'B': 40}\nprint(min(distance, key=distance.get))",
)


@benchmark(
    "numglue",
    answer_type="any",
    domain="in",
    size=1042,
    exemplars=(WORD_PROBLEMS[0], _CHOICE, *WORD_PROBLEMS[1:]),
)
def numglue(row: Row) -> Parsed:
    return question_and_answer(row)
