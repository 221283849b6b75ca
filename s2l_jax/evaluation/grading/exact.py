"""Answer type "exact": the text after the mark, or all of it; the others are in `extraction`."""

import re

from s2l_jax.evaluation.grading.comparison import Comparison

_MARK = "####"


def extract_answer(response: str) -> str:
    """What follows the last `####` up to the end of that line, or else the whole response."""
    if _MARK in response:
        response = response.rsplit(_MARK, 1)[1].strip().split("\n", 1)[0]
    return response.strip()


def compare(answer: str, expected: str) -> Comparison:
    """Whether two answers are the same text.

    Runs of white space count as one space, thousands separators and a final full stop as nothing.
    """
    same = _normalise(answer) == _normalise(expected)
    return same, "same text" if same else "other text"


def _normalise(answer: str) -> str:
    answer = re.sub(r"(?<=\d),(?=\d{3}\b)", "", " ".join(answer.split()))
    return answer.removesuffix(".").rstrip()
