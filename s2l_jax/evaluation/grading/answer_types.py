"""The types of answers: how each is taken out of a response and of a reference, and when two are the same."""

import dataclasses
import re
from collections.abc import Callable

from s2l_jax.errors import InputError, nearest
from s2l_jax.evaluation.grading import comparison, extraction
from s2l_jax.evaluation.grading.comparison import Comparison
from s2l_jax.evaluation.grading.numbers import parse_number

_LETTER = re.compile(r"(?:\\(?:text|mbox|mathrm|textbf)\s*\{\s*)?\(?([A-J])\)?\}?")
_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


@dataclasses.dataclass(frozen=True)
class AnswerKind:
    """One way to take answers out and compare them.

    Args:
      noun: what an answer is called.
      expected: a reference's answer as `compare` takes it; None if it is of another kind.
      answers: that a response may mean, the likeliest first; or one, or None.
      compare: an answer with the expected one; None where that takes a child process.
    """

    noun: str
    expected: Callable[[str], str | None]
    answers: Callable[[str], list[str] | str | None]
    compare: Callable[[str, str], Comparison | None]


@dataclasses.dataclass(frozen=True)
class AnswerType:
    """What a benchmark's answers are.

    Args:
      kinds: an answer is of the first one that its reference fits; any reference fits the last.
      reference: takes the answer out of a reference.
    """

    kinds: tuple[AnswerKind, ...]
    reference: Callable[[str], str] = extraction.reference_answer


def find_answer_type(name: str) -> AnswerType:
    """An answer type by its name; an InputError names the nearest where there is none."""
    if name not in ANSWER_TYPES:
        names = ", ".join(ANSWER_TYPES)
        raise InputError(f"answer type {name!r}: must be one of {names}{nearest(name, ANSWER_TYPES)}")
    return ANSWER_TYPES[name]


def _equal(noun: str) -> Callable[[str, str], Comparison]:
    return lambda a, b: (a == b, f"the same {noun}" if a == b else f"another {noun}")


def _if(fits: Callable[[str], object]) -> Callable[[str], str | None]:
    return lambda expected: expected if fits(expected) else None


def _letter(expected: str) -> str | None:
    letter = _LETTER.fullmatch(expected)
    return letter.group(1).upper() if letter else None


def _yes_or_no(expected: str) -> str | None:
    return _YES_NO.get(expected.lower())


_NUMBER = AnswerKind("number", _if(parse_number), extraction.number_answer, comparison.same_numbers)
_LIST = AnswerKind("answer", _if(comparison.number_list), extraction.math_answer, comparison.same_lists)
_YES_OR_NO = AnswerKind("answer", _yes_or_no, extraction.yes_no_answer, _equal("answer"))
_CHOICE = AnswerKind("letter", _letter, extraction.choice_answer, _equal("letter"))
_FORMULA = AnswerKind("answer", _if(comparison.looks_like_math), extraction.math_answer, comparison.same_math)
_MATH = dataclasses.replace(_FORMULA, expected=str)
_TEXT = AnswerKind("answer", str, extraction.text_answers, comparison.same_words)
_EXACT = AnswerKind("answer", str, extraction.exact_answer, comparison.same_text)

_KINDS = (_NUMBER, _YES_OR_NO, _CHOICE, _FORMULA, _TEXT)

# By the names that benchmarks and evaluation.answer_type have for them.
ANSWER_TYPES = {
    "any": AnswerType((_LIST, *_KINDS)),
    "number": AnswerType(_KINDS),
    "math": AnswerType((_MATH,)),
    "choice": AnswerType((_CHOICE, *_KINDS)),
    "yesno": AnswerType((_YES_OR_NO, *_KINDS)),
    "exact": AnswerType((_EXACT,), extraction.exact_answer),
}
