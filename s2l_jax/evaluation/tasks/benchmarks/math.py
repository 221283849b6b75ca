"""MATH (arXiv 2103.03874): competition problems whose answers are LaTeX."""

from s2l_jax.data.pool_fields import BadRow
from s2l_jax.data.pool_files import shortened
from s2l_jax.evaluation.tasks.benchmark import Exemplar, Parsed, Row, benchmark, text_field

_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

_EXEMPLARS = (
    Exemplar(
        r"If $f(x) = x^2 - 4x$, what is $f(f(3))$?",
        r"First $f(3) = 9 - 12 = -3$. Then $f(-3) = 9 + 12 = 21$. The answer is $\boxed{21}$.",
        "f = lambda x: x**2 - 4 * x\nprint(f(f(3)))",
    ),
    Exemplar(
        r"Simplify $\frac{18}{\sqrt{12}}$.",
        r"Since $\sqrt{12} = 2\sqrt{3}$, the value is $\frac{9}{\sqrt{3}} = 3\sqrt{3}$. The answer is "
        r"$\boxed{3\sqrt{3}}$.",
        "from sympy import Integer, simplify, sqrt\nprint(simplify(Integer(18) / sqrt(12)))",
    ),
    Exemplar(
        r"How many ways are there to choose 2 of 7 books?",
        r"There are $\binom{7}{2} = \frac{7 \cdot 6}{2} = 21$ ways. The answer is $\boxed{21}$.",
        "import math\nprint(math.comb(7, 2))",
    ),
    Exemplar(
        r"A fair coin is tossed 3 times. What is the probability of exactly one head? Express your answer as "
        r"a common fraction.",
        r"3 of the 8 equally likely outcomes have one head, so it is $\frac{3}{8}$. The answer is "
        r"$\boxed{\frac{3}{8}}$.",
        "from sympy import Rational, binomial\nprint(binomial(3, 1) * Rational(1, 8))",
    ),
)


@benchmark(
    "math",
    answer_type="math",
    domain="in",
    size=5000,
    hub=tuple(f"EleutherAI/hendrycks_math:{subject}" for subject in _SUBJECTS),
    exemplars=_EXEMPLARS,
)
def math(row: Row) -> Parsed:
    solution = text_field(row, "solution")
    if r"\boxed" not in solution and r"\fbox" not in solution:
        raise BadRow(rf'its "solution" has no \boxed answer: {shortened(solution)}')
    level, type_ = (text_field(row, name, required=False) for name in ("level", "type"))
    return Parsed(text_field(row, "problem"), solution, solution, level, type_)
