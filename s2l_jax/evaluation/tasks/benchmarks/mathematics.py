"""Mathematics (arXiv 1904.01557): school mathematics in short questions, in MAmmoTH's file."""

from s2l_jax.evaluation.tasks.benchmark import Exemplar, Parsed, Row, benchmark, question_and_answer

_EXEMPLARS = (
    Exemplar(
        "Solve 3*x - 7 = 2*x + 5 for x.",
        "3*x - 2*x = 5 + 7, so x = 12. The answer is 12",
        "from sympy import solve, symbols\nx = symbols('x')\nprint(solve(3 * x - 7 - 2 * x - 5, x)[0])",
    ),
    Exemplar(
        "What is the remainder when 1000 is divided by 37?",
        "37 * 27 = 999, so the remainder is 1. The answer is 1",
        "print(1000 % 37)",
    ),
    Exemplar(
        "What is the square root of 5000 to the nearest integer?",
        "71 * 71 = 5041 and 70 * 70 = 4900; 70.7 * 70.7 = 4998.5, which is nearer to 71. The answer is 71",
        "print(round(5000 ** 0.5))",
    ),
    Exemplar(
        "Which is the closest to 4?  (a) -1  (b) 6  (c) 1",
        "The distances are 5, 2 and 3. The smallest is that of 6. The answer is 6",
        "print(min([-1, 6, 1], key=lambda v: abs(v - 4)))",
    ),
)


@benchmark("mathematics", answer_type="any", domain="out", size=1000, exemplars=_EXEMPLARS)
def mathematics(row: Row) -> Parsed:
    return question_and_answer(row)
