"""The types of answers: how each is taken out of a response and of a reference, and when two are the same."""

import dataclasses
import re
from collections.abc import Callable, Sequence

from s2l_jax.errors import InputError
from s2l_jax.evaluation.grading import comparison, exact, extraction
from s2l_jax.evaluation.grading.comparison import Comparison
from s2l_jax.evaluation.grading.numbers import parse_number
from s2l_jax.registry import nearest

_LETTER = re.compile(r"(?:\\(?:text|mbox|mathrm|textbf)\s*\{\s*)?\(?([A-J])\)?\}?")
_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


@dataclasses.dataclass(frozen=True)
class AnswerKind:
    """One way to take answers out and compare them.

    Args:
      noun: what an answer is called.
      expected: a reference's answer as `compare` takes it; None if it is of another kind.
      answers: those that a response may mean, the likeliest first.
      compare: an answer with the expected one; None where that takes a child process.
    """

    noun: str
    expected: Callable[[str], str | None]
    answers: Callable[[str], Sequence[str]]
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
    """An answer type by its name.

    Raises:
      InputError: there is none; names the nearest.
    """
    if name not in ANSWER_TYPES:
        names = ", ".join(ANSWER_TYPES)
        raise InputError(f"answer type {name!r}: must be one of {names}{nearest(name, ANSWER_TYPES)}")
    return ANSWER_TYPES[name]


def _optional(extract: Callable[[str], str | None]) -> Callable[[str], Sequence[str]]:
    """One answer or none."""

    def answers(response: str) -> Sequence[str]:
        answer = extract(response)
        return () if answer is None else (answer,)

    return answers


def _same_word(noun: str) -> Callable[[str, str], Comparison]:
    def compare(answer: str, expected: str) -> Comparison:
        same = answer == expected
        return same, f"the same {noun}" if same else f"another {noun}"

    return compare


def _letter(expected: str) -> str | None:
    letter = _LETTER.fullmatch(expected)
    return letter.group(1).upper() if letter else None


def _if(fits: Callable[[str], object]) -> Callable[[str], str | None]:
    return lambda expected: expected if fits(expected) else None


def _any(expected: str) -> str:
    return expected


_LIST = AnswerKind(
    "answer", _if(comparison.number_list), _optional(extraction.math_answer), comparison.same_lists
)
_NUMBER = AnswerKind(
    "number", _if(parse_number), _optional(extraction.number_answer), comparison.same_numbers
)
_YES_OR_NO = AnswerKind(
    "answer",
    lambda expected: _YES_NO.get(expected.lower()),
    _optional(extraction.yes_no_answer),
    _same_word("answer"),
)
_CHOICE = AnswerKind("letter", _letter, _optional(extraction.choice_answer), _same_word("letter"))
_MATH = AnswerKind("answer", _any, _optional(extraction.math_answer), comparison.same_math)
_FORMULA = dataclasses.replace(_MATH, expected=_if(comparison.looks_like_math))
_TEXT = AnswerKind("answer", _any, extraction.text_answers, comparison.same_words)
_EXACT = AnswerKind("answer", _any, lambda response: [exact.extract_answer(response)], exact.compare)

_KINDS = (_NUMBER, _YES_OR_NO, _CHOICE, _FORMULA, _TEXT)

# By the names that benchmarks and evaluation.answer_type have for them.
ANSWER_TYPES = {
    "any": AnswerType((_LIST, *_KINDS)),
    "number": AnswerType(_KINDS),
    "math": AnswerType((_MATH,)),
    "choice": AnswerType((_CHOICE, *_KINDS)),
    "yesno": AnswerType((_YES_OR_NO, *_KINDS)),
    "exact": AnswerType((_EXACT,), exact.extract_answer),
}
