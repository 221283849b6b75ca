"""SimulEq (Koncel-Kedziorski et al., NAACL 2016): problems of several equations, in MAmmoTH's file."""

from s2l_jax.evaluation.tasks.benchmark import Exemplar, Parsed, Row, benchmark, question_and_answer

_EXEMPLARS = (
    Exemplar(
        "A farm has hens and goats, 30 animals with 84 legs. How many hens are there? How many goats?",
        "Let h be the hens and g the goats: h + g = 30 and 2h + 4g = 84. Then 2g = 84 - 60 = 24, so g = 12 "
        "and h = 18. The answer is 18",
        "from sympy import solve, symbols\nh, g = symbols('h g')\n"
        "solution = solve([h + g - 30, 2 * h + 4 * g - 84], [h, g])\nprint(solution[h])",
    ),
    Exemplar(
        "The sum of two numbers is 47 and their difference is 9. What is the larger number?",
        "Adding x + y = 47 and x - y = 9 gives 2x = 56, so x = 28. The answer is 28",
        "from sympy import solve, symbols\nx, y = symbols('x y')\n"
        "solution = solve([x + y - 47, x - y - 9], [x, y])\n"
        "print(solution[x])",
    ),
    Exemplar(
        "Adults pay 9 dollars and children 4 dollars. 50 tickets brought in 325 dollars. How many "
        "adults came?",
        "With a adults, 9a + 4(50 - a) = 325, so 5a = 125 and a = 25. The answer is 25",
        "from sympy import solve, symbols\na = symbols('a')\nprint(solve(9 * a + 4 * (50 - a) - 325, a)[0])",
    ),
    Exemplar(
        "One plan costs 20 dollars and 3 dollars an hour, another 8 dollars and 5 dollars an hour. After how "
        "many hours do they cost the same?",
        "20 + 3t = 8 + 5t gives 2t = 12, so t = 6. The answer is 6",
        "from sympy import solve, symbols\nt = symbols('t')\nprint(solve(20 + 3 * t - 8 - 5 * t, t)[0])",
    ),
)


@benchmark("simuleq", answer_type="number", domain="out", size=514, exemplars=_EXEMPLARS)
def simuleq(row: Row) -> Parsed:
    return question_and_answer(row)
