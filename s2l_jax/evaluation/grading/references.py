"""Whether references are of the answer type that is asked for."""

import re
from collections.abc import Sequence

from s2l_jax.data.pool_files import shortened
from s2l_jax.errors import InputError
from s2l_jax.evaluation.grading.answer_types import find_answer_type

_NOUNS = {"number": "no number", "choice": "no letter of a choice", "yesno": "neither yes nor no"}
_MOST_WORDS = 8  # of an answer; more are a worked solution


def check_references(answer_type: str, references: Sequence[str], where: str = "") -> None:
    """Refuse references that are not of an answer type: no response could be right.

    Args:
      answer_type: its name.
      references: as they are graded against.
      where: what they belong to, for the message.

    Raises:
      InputError: some are not; it has the first of them, and how many there are.
    """
    graded_as = find_answer_type(answer_type)
    wrong = [i for i, reference in enumerate(references) if graded_as.find_kind(reference) is None]
    if wrong:
        first = wrong[0]
        others = f", like {len(wrong) - 1:,} more of {len(references):,}" if len(wrong) > 1 else ""
        raise InputError(
            f"{where and where + ': '}reference {first + 1}, {shortened(references[first])}, is "
            f'{_NOUNS[answer_type]}{others}: mark final answers with "#### " or \\boxed{{}}, or set the answer '
            'type to "any", which takes each reference as what it is.'
        )


def num_sentences(answer_type: str, references: Sequence[str]) -> int:
    """References that are whole sentences without a marked answer, and are compared as such."""
    if answer_type == "exact":
        return 0
    return sum(_is_sentence(answer_type, reference) for reference in references)


def _is_sentence(answer_type: str, reference: str) -> bool:
    found = find_answer_type(answer_type).find_kind(reference)
    return found is not None and len(re.findall(r"(?<!\\)\b[A-Za-z]{2,}", found[1])) > _MOST_WORDS
