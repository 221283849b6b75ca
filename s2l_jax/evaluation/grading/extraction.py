"""Where a response says its final answer: the marks and habits of the field."""

import re

from s2l_jax.evaluation.grading import claims
from s2l_jax.evaluation.grading.affirmation import first_affirmation, last_affirmation
from s2l_jax.evaluation.grading.boxes import all_boxes, alternative_boxes, last_box
from s2l_jax.evaluation.grading.characters import FUNCTIONS
from s2l_jax.evaluation.grading.choices import first_letter, last_letter
from s2l_jax.evaluation.grading.quantities import first_quantity, last_quantity, only_quantity

_HASHES = "####"
_PHRASE = re.compile(
    r"\b(?:(?:answer|option|choice|ans)\b[*_]*\s*(?:is|are|was|would\ be|:|=)"
    r"|ans(?:wer\b[*_]*\s*[-–—](?=\s)|\.))"
    r"[*_]*[^\S\n]*:?",
    re.IGNORECASE,
)
# Bounded: a response that opens thousands of formulas and closes none would take quadratic time.
_MATH_SPAN = re.compile(
    r"\$\$(.{1,2000}?)\$\$|\\\[(.{1,2000}?)\\\]|\\\((.{1,2000}?)\\\)|(?<!\\)\$([^$\n]{1,2000}?)(?<!\\)\$",
    re.DOTALL,
)
_APPROXIMATELY = re.compile(r"≈|≃|≅|\\approx(?![A-Za-z])|\\simeq(?![A-Za-z])")
_SENTENCE_END = re.compile(  # but not behind "e.g.", or a factorial
    r"(?<=\S)(?<!\be\.g)(?<!\bi\.e)(?:[.?]|!(?!\s[a-z]))(?=\s|$)|\n"
)
_WRAPPED = re.compile(
    r"\$\$(.*)\$\$|\$((?:[^$\\]|\\.)*)\$|\\\[(.*)\\\]|\\\((.*)\\\)|\*\*([^*]*)\*\*|`([^`]*)`|\"([^\"]*)\"",
    re.DOTALL,
)

_WORD = rf"(?!(?:{FUNCTIONS})(?:\b|_))[A-Za-z][a-z]+"
_PROSE = re.compile(rf"(?:[A-Z]|{_WORD}),?\s+[A-Za-z]")  # a line that begins with two words
_SAID = re.compile(r"=|\b(?:is|are|equals)\b")  # comes before what a line in prose says


def marked_answer(response: str) -> str | None:
    r"""What follows the mark of a final answer; None where there is none.

    The last `\boxed{}`, or else the rest of the line after the last `####`, or else what follows the
    last "answer is" or "answer:" up to the end of its sentence.
    """
    if (box := last_box(response)) is not None:
        return box
    if _HASHES in response:
        return exact_answer(response)
    phrases = list(_PHRASE.finditer(response))
    return _sentence(response[phrases[-1].end() :]) if phrases else None


def number_answers(response: str) -> list[str]:
    """The quantity a response ends up with, as it is written; with a rounded one, if there is one.

    In a box or a formula it is all of that, after a mark the first one of its clause, or what the clause
    says that equals; without a mark the last one.
    """
    if (box := last_box(response)) is not None:
        found = [only_quantity(part) for part in _APPROXIMATELY.split(box)]
    elif (marked := marked_answer(response)) is not None:
        marked = _sentence(marked) if _HASHES in response else marked
        found = [first_quantity(part) for part in _APPROXIMATELY.split(marked)]
    else:
        found = []
    return [each for each in found if each] or [each for each in [last_quantity(response)] if each]


def choice_answer(response: str) -> str | None:
    """The letter that a response chooses, as a capital."""
    marked = marked_answer(response)
    bare = clean(response if marked is None else marked).strip("().:")
    if re.fullmatch("[A-Ja-j]", bare):
        return bare.upper()
    return last_letter(response) if marked is None else first_letter(marked)


def yes_no_answer(response: str) -> str | None:
    """ "yes" or "no"; true and false count as such."""
    marked = marked_answer(response)
    return (first_affirmation(marked) if marked is not None else None) or last_affirmation(response)


def math_answers(response: str) -> list[str]:
    """The expression a response ends up with: the marked one, or else the last formula or last line.

    All boxes together may be meant too, if there are several. Of a last line in prose it is what follows
    the last equals sign or "is", or else the last quantity.
    """
    if (box := last_box(response)) is not None:
        found = [box, ", ".join(all_boxes(response))]
    elif (marked := marked_answer(response)) is not None:
        claimed = claims.without_asides(claims.claimed(marked))
        found = [", ".join(_formulas(claimed)) or claimed]
    elif formulas := _formulas(response):
        found = formulas[-1:]
    else:
        found = [_last_line(response)]
    return [answer for each in dict.fromkeys(found) if (answer := clean(each))]


def _formulas(text: str) -> list[str]:
    return ["".join(groups) for groups in _MATH_SPAN.findall(text)]


def _last_line(response: str) -> str:
    line = clean(claims.without_bullets(response.strip().rpartition("\n")[2]))
    if not _PROSE.match(line):
        return line
    said = _SAID.split(line)[-1].strip()
    is_value = re.search(r"\d", said) and not re.match(_WORD, said) and not _PROSE.match(said)
    return said if is_value else last_quantity(line) or line


def text_answers(response: str) -> list[str]:
    """Texts that a response may mean as its answer: the marked one, the last line, all of it."""
    lines, marked = response.strip().splitlines(), marked_answer(response)
    found = [*([marked, claims.claimed(marked)] if marked else []), *lines[-1:], response]
    return [clean(each) for each in dict.fromkeys(found) if clean(each)]


def exact_answer(response: str) -> str:
    """What follows the last `####` up to the end of that line, or else the whole response."""
    if _HASHES in response:
        response = response.rsplit(_HASHES, 1)[1].strip().split("\n", 1)[0]
    return response.strip()


def reference_answers(reference: str) -> list[str]:
    """The answers that a reference accepts: the marked one of a worked solution, or else all of it.

    Several only where it says so: "either point is a correct answer".
    """
    marked = marked_answer(reference)
    found = [reference if marked is None else marked, *alternative_boxes(reference)]
    return [clean(each) for each in dict.fromkeys(found)]


def clean(text: str) -> str:
    """Without what is around an answer: spaces, quotes, emphasis, math delimiters, a final full stop."""
    previous = None
    while text != previous:
        previous = text
        text = text.strip().rstrip(". \t\n")
        if wrapped := _WRAPPED.fullmatch(text):
            text = "".join(wrapped.groups(""))
    return text


def _sentence(rest: str) -> str:
    """A text up to the end of its first sentence or formula."""
    if "\n" in rest[: len(rest) - len(rest.lstrip(" \t\n:*_"))]:
        rest = claims.without_bullets(rest.lstrip(" \t\n:*_"))  # on a line of its own: "- 18" is 18
    rest = rest.lstrip(" \t\n:*_")
    span = _MATH_SPAN.match(rest)
    start = span.end() if span else 0
    end = _SENTENCE_END.search(rest, start)
    return (rest[: end.start()] if end else rest).rstrip(" \t\n*_")
