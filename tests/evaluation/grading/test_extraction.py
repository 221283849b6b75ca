"""What is taken for the answer of a response."""

import pytest

from s2l_jax.evaluation.grading.boxes import last_box
from s2l_jax.evaluation.grading.extraction import (
    choice_answer,
    marked_answer,
    math_answers,
    number_answers,
    reference_answers,
    yes_no_answer,
)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{3} and then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 5$ is it", "5"),
        (r"\boxed{a} then \boxed{b", "a"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("2 + 2 = 4\n#### 4", "4"),
        ("####4\nand more", "4"),
        ("#### 1\nno\n#### 2", "2"),
        ("The answer is 5.", "5"),
        ("The answer is: 5. That is all.", "5"),
        ("**Answer:** 5", "5"),
        ("the final answer is $\\frac{1}{2}$. I hope it is correct.", r"$\frac{1}{2}$"),
        ("The answer is\n\n18", "18"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("The answer is $3.50 a piece.", "$3.50 a piece"),
        ("It is five.", None),
        ("", None),
    ],
)
def test_marked_answers(response, answer):
    assert marked_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("She has 3 + 4 = 7 apples. The answer is 7 apples.", "7"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("The answer is $1,200 for 3 people.", "$1,200"),
        ("The answer is seven, that is\n7", "7"),
        ("first 3, then 16-4", "16-4"),
        ("So 50% of them, 12 in all", "12"),
        ("x2 and H2O", None),
        ("18.0\n", "18.0"),
        ("Sum: -3", "-3"),
        ("no digits", None),
        ("", None),
    ],
)
def test_number_answers(response, answer):
    assert number_answers(response) == ([answer] if answer else [])


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B) tree", "B"),
        ("The answer is (A) web", "A"),
        ("The answer is A.", "A"),
        ("The correct option is B: it is warmer", "B"),
        ("I think A is wrong, so (B)", "B"),
        ("Answer: **C**", "C"),
        (r"\boxed{D}", "D"),
        ("A tree is taller", None),
        ("I am not sure", None),
        ("", None),
    ],
)
def test_choices(response, answer):
    assert choice_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Yes, it is.", "yes"),
        ("True", "yes"),
        ("The answer is no, not yes.", "no"),
        ("12 = 3 * 4, so it is. False? No. True.", "yes"),
        ("Nothing is known", None),
        ("", None),
    ],
)
def test_yes_and_no(response, answer):
    assert yes_no_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"Thus \(x = 5\) and so \boxed{x=5}.", "x=5"),
        ("The answer is $2$ and $3$.", "2, 3"),
        (r"We get $$\frac{1}{2}$$ in the end.", r"\frac{1}{2}"),
        ("[sqrt(2), 3]\n", "[sqrt(2), 3]"),
        ("two lines\n3*sqrt(2)", "3*sqrt(2)"),
        ("Therefore the value is 7 units.", "7 units"),
        ("So x = 3*pi", "3*pi"),
        ("I think 3/4", "3/4"),
        ("He adds 3 to get 5", "5"),
        ("It is even", "It is even"),
        ("sin x + 2", "sin x + 2"),
        ("", None),
    ],
)
def test_expressions(response, answer):
    assert math_answers(response) == ([answer] if answer else [])


def test_references():
    assert reference_answers("3 * 4 = <<3*4=12>>12\n#### 12") == ["12"]
    assert reference_answers(r"It is $\boxed{\frac{1}{2}}$.") == [r"\frac{1}{2}"]
    assert reference_answers("[3, 5]") == ["[3, 5]"]
    assert last_box("none") is None
