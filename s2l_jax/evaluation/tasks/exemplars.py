"""Solved examples that several benchmarks have in common; those of one alone are in its file."""

from s2l_jax.evaluation.tasks.benchmark import Exemplar

WORD_PROBLEMS = (
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
