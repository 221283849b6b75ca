"""Where a response says its final answer: the marks and habits of the field."""

import re

from s2l_jax.evaluation.grading.numbers import first_number, last_number

_HASHES = "####"
_BOXES = re.compile(r"\\(?:boxed|fbox)\s*")
_PHRASE = re.compile(
    r"\b(?:answer|option|choice)\b[*_]*\s*(?:is|are|was|would\ be|:|=)[*_]*\s*:?", re.IGNORECASE
)
# Bounded: a response that opens thousands of formulas and closes none would take quadratic time.
_MATH_SPAN = re.compile(
    r"\$\$(.{1,2000}?)\$\$|\\\[(.{1,2000}?)\\\]|\\\((.{1,2000}?)\\\)|(?<!\\)\$([^$\n]{1,2000}?)(?<!\\)\$",
    re.DOTALL,
)
_MOST_BOXES = 50  # that are looked at, from the last; for the same reason
_SENTENCE_END = re.compile(r"(?<=\S)[.!?](?=\s|$)|\n")
_WRAPPED = re.compile(
    r"\$\$(.*)\$\$|\$((?:[^$\\]|\\.)*)\$|\\\[(.*)\\\]|\\\((.*)\\\)|\*\*([^*]*)\*\*|`([^`]*)`|\"([^\"]*)\"",
    re.DOTALL,
)

_LETTER = re.compile(
    r"\(([A-Ja-j])\)"  # (B)
    r"|(?<![\w'])([A-J])(?=\s*[).:,]|\s*$)"  # B), B., B: and B at the end
    r"|\b(?:option|choice|answer)\s+([A-Ja-j])\b",
    re.IGNORECASE,
)
_WORD = r"(?!(?:sin|cos|tan|log|ln|exp|sqrt|pi)\b)[A-Za-z][a-z]+"
_PROSE = re.compile(rf"(?:[A-Z]|{_WORD}),?\s+[A-Za-z]")  # a line that begins with two words
_SAID = re.compile(r"=|\b(?:is|are|equals)\b")  # comes before what a line in prose says
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)


def marked_answer(response: str) -> str | None:
    r"""What follows the mark of a final answer; None where there is none.

    The last `\boxed{}`, or else the rest of the line after the last `####`, or else what follows the
    last "answer is" or "answer:" up to the end of its sentence.
    """
    if (boxed := last_boxed(response)) is not None:
        return boxed
    if _HASHES in response:
        return exact_answer(response)
    phrases = list(_PHRASE.finditer(response))
    return _sentence(response[phrases[-1].end() :]) if phrases else None


def last_boxed(response: str) -> str | None:
    r"""What is in the last `\boxed{}` or `\fbox{}`; None if there is none that is closed."""
    for match in list(_BOXES.finditer(response))[: -_MOST_BOXES - 1 : -1]:
        rest = response[match.end() :]
        if not rest.startswith("{"):
            word = re.match(r"[^\s$.,]+", rest)
            return word.group() if word else None
        depth = 0
        for place, character in enumerate(rest):
            if character in "{}" and rest[place - 1 : place] != "\\":
                depth += 1 if character == "{" else -1
            if depth == 0:
                return rest[1:place].strip()
    return None


def number_answer(response: str) -> str | None:
    """The number a response ends up with, as it is written.

    After a mark the first number, or where there is an equals sign the first one behind the last of
    them; without a mark the last number.
    """
    marked = marked_answer(response)
    if marked is None:
        return last_number(response)
    return first_number(marked.rsplit("=", 1)[-1]) or last_number(marked) or last_number(response)


def choice_answer(response: str) -> str | None:
    """The letter that a response chooses, as a capital."""
    marked = marked_answer(response)
    text = response if marked is None else marked
    bare = clean(text).strip("().:")
    if re.fullmatch("[A-Ja-j]", bare):
        return bare.upper()
    found = ["".join(groups).upper() for groups in _LETTER.findall(text)]  # one of the groups matched
    return found[-1 if marked is None else 0] if found else None


def yes_no_answer(response: str) -> str | None:
    """ "yes" or "no"; true and false count as such."""
    marked = marked_answer(response)
    found = _YES_NO.findall(response if marked is None else marked)
    if not found:
        return None
    word = found[-1 if marked is None else 0].lower()
    return "yes" if word in ("yes", "true") else "no"


def math_answer(response: str) -> str | None:
    """The expression a response ends up with: the marked one, or else the last formula or last line.

    Of a last line in prose it is what follows the last equals sign or "is", or else the last number.
    """
    marked = marked_answer(response)
    spans = ["".join(groups) for groups in _MATH_SPAN.findall(response if marked is None else marked)]
    if marked is not None:
        return clean(", ".join(spans) if spans else marked) or None
    if spans:
        return clean(spans[-1]) or None
    line = clean(response.strip().rpartition("\n")[2])
    if _PROSE.match(line):
        said = _SAID.split(line)[-1].strip()
        is_value = re.search(r"\d", said) and not re.match(_WORD, said) and not _PROSE.match(said)
        line = said if is_value else last_number(line) or line
    return line or None


def text_answers(response: str) -> list[str]:
    """Texts that a response may mean as its answer: the marked one, the last line, all of it."""
    lines = response.strip().splitlines()
    found = [marked_answer(response), lines[-1] if lines else None, response]
    return [clean(each) for each in found if each is not None and clean(each)]


def exact_answer(response: str) -> str:
    """What follows the last `####` up to the end of that line, or else the whole response."""
    if _HASHES in response:
        response = response.rsplit(_HASHES, 1)[1].strip().split("\n", 1)[0]
    return response.strip()


def reference_answer(reference: str) -> str:
    """The answer that a reference holds: the marked one of a worked solution, or else all of it."""
    marked = marked_answer(reference)
    return clean(reference if marked is None else marked)


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
    rest = rest.lstrip(" \t\n:*_")
    span = _MATH_SPAN.match(rest)
    start = span.end() if span else 0
    end = _SENTENCE_END.search(rest, start)
    return (rest[: end.start()] if end else rest).rstrip(" \t\n*_")
