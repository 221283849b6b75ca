"""Whether references are of the answer type that is asked for."""

import re
from collections.abc import Sequence

from s2l_jax.console import say
from s2l_jax.data.pool_files import shortened
from s2l_jax.errors import InputError
from s2l_jax.evaluation.grading.answer_types import find_answer_type

_NOUNS = {"number": "no number", "choice": "no letter of a choice", "yesno": "neither yes nor no"}
_MOST_WORDS, _MOST_WORDS_WITH_NUMBERS = 8, 3  # of an answer; more are a worked solution


def check_references(answer_type: str, references: Sequence[str], places: Sequence[str] = ()) -> None:
    """Refuse references that are not of an answer type: no response could be right.

    Args:
      answer_type: its name.
      references: as they are graded against.
      places: where each comes from, for the message.

    Raises:
      InputError: some are not; it has the first of them, and how many there are.
    """
    graded_as = find_answer_type(answer_type)
    wrong = [i for i, reference in enumerate(references) if not graded_as.expected(reference)]
    if wrong:
        first = wrong[0]
        raise InputError(
            f"{places[first] if places else f'reference {first + 1}'}: the reference "
            f"{shortened(references[first])} is {_NOUNS[answer_type]}, which answer type "
            f"{answer_type!r} needs ({len(wrong):,} of {len(references):,} are none): mark final answers "
            'with "#### " or \\boxed{}, or use answer type "any", which takes each as what it is.'
        )


def say_sentences(answer_type: str, references: Sequence[str]) -> None:
    """Say how many references are whole sentences without a marked answer, and are compared as such."""
    if answer_type == "exact":  # where that is asked for
        return
    if found := sum(_is_sentence(answer_type, reference) for reference in references):
        say(
            f"{found:,} of {len(references):,} references are sentences without a marked final answer: a "
            'response is right only if it says the same words. Mark answers with "#### " or \\boxed{}.'
        )


def _is_sentence(answer_type: str, reference: str) -> bool:
    def too_long(expected: str) -> bool:
        most = _MOST_WORDS_WITH_NUMBERS if re.search(r"\d", expected) else _MOST_WORDS
        return len(re.findall(r"(?<!\\)\b[A-Za-z]{2,}", expected)) > most

    return any(too_long(expected) for _, expected in find_answer_type(answer_type).expected(reference))
