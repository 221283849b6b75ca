"""The types of answers: how each is taken out of a response and of a reference, and when two are the same."""

import dataclasses
import re
from collections.abc import Callable

from s2l_jax.errors import InputError, nearest
from s2l_jax.evaluation.grading import comparison, extraction
from s2l_jax.evaluation.grading.affirmation import MEANS
from s2l_jax.evaluation.grading.characters import FUNCTIONS
from s2l_jax.evaluation.grading.comparison import Comparison
from s2l_jax.evaluation.grading.numbers import is_code, parse_number
from s2l_jax.evaluation.grading.quantities import EQUALS, only_quantity
from s2l_jax.evaluation.grading.wording import plain_wording

LONGEST = 20_000  # characters of a response or reference that are looked through, from the end

_LETTER = re.compile(r"(?:\\(?:text|mbox|mathrm|textbf)\s*\{\s*)?\(?([A-J])\)?\}?")
_LETTER_FIRST = re.compile(r"(?:\(([A-Ja-j])\)|([A-Ja-j])[).:])(?:\s.*)?|([a-j])", re.DOTALL)
_COMMAND = re.compile(rf"\\[A-Za-z]+|(?<![A-Za-z])(?:{FUNCTIONS})(?![A-Za-z])")
_NAMED = re.compile(r"\s*[A-Za-z]|.*\d(?:[A-Za-z]+|\s?–\s?)\d", re.DOTALL)  # page 12, COVID-19, 0x1F, 10–12
_NO_VALUE = re.compile(r"[A-Za-z,<>≤≥]")
_MOST_WORDS = 5  # of a unit behind a number; more are a sentence


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
      kinds: an answer is of the first one that its reference fits.
      references: takes the answers out of a reference, any of which is right.
      printed: what a program printed, as a response says it.
    """

    kinds: tuple[AnswerKind, ...]
    references: Callable[[str], list[str]] = extraction.reference_answers
    printed: str = "The answer is {}"

    def expected(self, reference: str) -> list[tuple[AnswerKind, str]]:
        """The answers of a reference, each with its kind; none for a reference that is not of this type."""
        found = []
        for wanted in self.references(reference[-LONGEST:]):
            kinds = ((kind, kind.expected(wanted)) for kind in self.kinds)
            found += [(kind, expected) for kind, expected in kinds if expected is not None][:1]
        return found


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


def _lettered(expected: str) -> str | None:
    """The letter of `B) tree` too."""
    letter = _LETTER_FIRST.fullmatch(expected)
    return _letter(expected) or ("".join(letter.groups("")).upper() if letter else None)


def _yes_or_no(expected: str) -> str | None:
    return MEANS.get(expected.lower())


def _affirmed(expected: str) -> str | None:
    """What `Yes, it is` says too."""
    word = re.match(r"(\w+)(?=[,.;:!](?!\s*\d)|\s*$)", expected)
    return _yes_or_no(word[1]) if word else None


def _quantity(expected: str) -> str | None:
    """A number, an expression of them, or one with its unit; not what a sentence, a date or a name has."""
    if parse_number(expected):
        return expected
    said = _COMMAND.sub(" ", EQUALS.split(plain_wording(expected))[-1])
    if _NAMED.match(said) or len(re.findall(r"[A-Za-z]{2,}", said)) > _MOST_WORDS:
        return None
    found = only_quantity(expected) or ""
    is_expression = not (_NO_VALUE.search(_COMMAND.sub("", found)) or is_code(found))
    return found if found and (parse_number(found) or is_expression) else None


_NUMBER = AnswerKind("number", _if(parse_number), extraction.number_answers, comparison.same_quantities)
_LIST = AnswerKind("answer", _if(comparison.number_list), extraction.math_answers, comparison.same_lists)
_YES_OR_NO = AnswerKind("yes or no", _yes_or_no, extraction.yes_no_answer, _equal("answer"))
_CHOICE = AnswerKind("letter", _letter, extraction.choice_answer, _equal("letter"))
_FORMULA = AnswerKind(
    "answer", _if(comparison.looks_like_math), extraction.math_answers, comparison.same_math
)
_TEXT = AnswerKind("answer", str, extraction.text_answers, comparison.same_words)
_EXACT = AnswerKind("answer", str, extraction.exact_answer, comparison.same_text)

# By the names that benchmarks and evaluation.answer_type have for them.
ANSWER_TYPES = {
    "any": AnswerType((_LIST, _NUMBER, _YES_OR_NO, _CHOICE, _FORMULA, _TEXT)),
    "number": AnswerType((dataclasses.replace(_NUMBER, expected=_quantity),)),
    "math": AnswerType((dataclasses.replace(_FORMULA, expected=str),)),
    "choice": AnswerType((dataclasses.replace(_CHOICE, expected=_lettered),)),
    "yesno": AnswerType((dataclasses.replace(_YES_OR_NO, expected=_affirmed),)),
    "exact": AnswerType((_EXACT,), lambda reference: [extraction.exact_answer(reference)], printed="{}"),
}
