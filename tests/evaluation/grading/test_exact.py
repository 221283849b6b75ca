"""Answer type "exact": the text after the last mark, compared as text."""

import pytest

from s2l_jax.evaluation.grading.extraction import exact_answer
from s2l_jax.evaluation.grading.grader import Grader


def same(response, reference):
    with Grader(1) as grader:
        return grader.grade("exact", [response], [reference])[0].correct


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("2 + 2 = 4\n#### 4", "4"),
        ("####4", "4"),
        ("#### 1\nno\n#### 2", "2"),
        ("#### 7\nand then some", "7"),
        ("  Paris \n", "Paris"),
        ("#### ", ""),
        ("", ""),
        ("the answer\nin two lines", "the answer\nin two lines"),
    ],
)
def test_the_answer_follows_the_last_mark(response, answer):
    assert exact_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("so 12 #### 12", "3 * 4 = 12\n#### 12"),
        ("12", "#### 12"),
        ("#### 1,234,567", "#### 1234567"),
        ("#### 12.", "#### 12"),
        ("#### 12 .", "12"),
        ("a   b\tc", "a b c"),
        ("#### -3", "#### -3"),
        ("x = 1, 2", "x = 1, 2"),
    ],
)
def test_equal_answers(response, reference):
    assert same(response, reference)
    assert same(reference, response)


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("#### 12", "#### 13"),
        ("#### 1,23", "#### 123"),
        ("#### 1.2", "#### 12"),
        ("#### ", "#### 1"),
        ("", "#### 0"),
        ("12 apples", "12"),
        ("#### 3", "#### -3"),
        ("Paris", "paris"),
        ("0.5", "5"),
    ],
)
def test_different_answers(response, reference):
    assert not same(response, reference)


def test_a_whole_list_is_graded():
    with Grader(1) as grader:
        verdicts = grader.grade("exact", ["so #### 12.", "12 apples"], ["12", "12"])
    assert [v.correct for v in verdicts] == [True, False]
