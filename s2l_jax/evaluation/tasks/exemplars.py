"""Solved examples written for few-shot prompts, each with a worked answer and a program."""

from typing import NamedTuple


class Exemplar(NamedTuple):
    """A question with a worked answer, and with a program ("" for none)."""

    question: str
    text: str
    program: str


_WORDS = (
    Exemplar(
        "A baker has 12 trays with 8 rolls each. She sells 70 rolls in the morning. How many rolls are left?",
        "The trays hold 12 * 8 = 96 rolls. After the morning 96 - 70 = 26 are left. The answer is 26",
        "rolls = 12 * 8\nleft = rolls - 70\nprint(left)",
    ),
    Exemplar(
        "Nadia reads 15 pages on each weekday and 30 pages on each day of the weekend. How many weeks does "
        "a book of 540 pages take her?",
        "On weekdays she reads 5 * 15 = 75 pages and at the weekend 2 * 30 = 60, so 75 + 60 = 135 in a week. "
        "The book takes 540 / 135 = 4 weeks. The answer is 4",
        "pages_a_week = 5 * 15 + 2 * 30\nprint(540 / pages_a_week)",
    ),
    Exemplar(
        "A jacket costs $80. In a sale it is 15% off, and Tom has a voucher for another $5. What does "
        "he pay?",
        "15% of 80 is 0.15 * 80 = 12, so the sale price is 80 - 12 = 68. With the voucher he pays "
        "68 - 5 = 63 dollars. The answer is 63",
        "price = 80\nprice -= 0.15 * price\nprice -= 5\nprint(price)",
    ),
    Exemplar(
        "Two pumps fill a pool of 900 litres. One gives 40 litres a minute and the other 35. How long do "
        "they take together, in minutes?",
        "Together they give 40 + 35 = 75 litres a minute, so they take 900 / 75 = 12 minutes. "
        "The answer is 12",
        "rate = 40 + 35\nprint(900 / rate)",
    ),
    Exemplar(
        "Ella is 3 times as old as her brother. In 6 years she will be twice as old as he is then. How old "
        "is Ella?",
        "Let her brother be b, so Ella is 3b. In 6 years 3b + 6 = 2(b + 6), which gives b = 6. Ella is "
        "3 * 6 = 18. The answer is 18",
        "from sympy import solve, symbols\nb = symbols('b')\nbrother = solve(3 * b + 6 - 2 * (b + 6), b)[0]\n"
        "print(3 * brother)",
    ),
    Exemplar(
        "There were 31 birds on a wire. Some flew away and 18 stayed. How many flew away?",
        "Those that flew away are 31 - 18 = 13. The answer is 13",
        "print(31 - 18)",
    ),
)

_CHOICES = (
    Exemplar(
        "A marble rolls 40 cm on carpet and 95 cm on tile. Which surface slows it more? \n"
        "Answer Choices: (A) tile (B) carpet",
        "It comes to rest sooner on carpet, since 40 is less than 95, so carpet slows it more. "
        "The answer is B",
        "distance = {'A': 95, 'B': 40}\nprint(min(distance, key=distance.get))",
    ),
)

_EQUATIONS = (
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

_SHORT = (
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

_LATEX = (
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

EXEMPLARS = {
    "gsm8k": _WORDS,
    "svamp": _WORDS,
    "numglue": (_WORDS[0], *_CHOICES, *_WORDS[1:]),
    "simuleq": _EQUATIONS,
    "mathematics": _SHORT,
    "math": _LATEX,
}
