"""Answer type "exact": the text after the mark, or all of it; the others are in `extraction`."""

import re

_MARK = "####"


def extract_answer(response: str) -> str:
    """What follows the last `####` up to the end of that line, or else the whole response."""
    if _MARK in response:
        response = response.rsplit(_MARK, 1)[1].strip().split("\n", 1)[0]
    return response.strip()


def exact_match(response: str, reference: str) -> bool:
    """Whether two responses have the same final answer.

    Runs of white space count as one space, thousands separators and a final full stop as nothing.
    """
    return _normalise(extract_answer(response)) == _normalise(extract_answer(reference))


def _normalise(answer: str) -> str:
    answer = re.sub(r"(?<=\d),(?=\d{3}\b)", "", " ".join(answer.split()))
    return answer.removesuffix(".").rstrip()
