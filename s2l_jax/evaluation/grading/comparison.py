"""When two answers are the same: numbers, lists of them, expressions, words."""

import itertools
import re

from s2l_jax.evaluation.grading.characters import FUNCTIONS
from s2l_jax.evaluation.grading.numbers import Number, is_code, parse_number, same_number

Comparison = tuple[bool, str]  # whether they are the same, and a few words why

_LONGEST = 1000  # characters of an expression that is still compared

_OR = re.compile(r"\s+or\s+")
_DOZENS = re.compile(r"^(.*\d)\s?dozen$")
_CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)")
_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textbf|textrm)\s*\{([^{}]*)\}")
_WORDY = re.compile(r"(?:[A-Za-z]{2,}|[aI])(?:[\s'.-]+[A-Za-z]+)*")
# Units too short to be told from names beside an expression; after a number and a space they are units.
_SHORT_UNIT = re.compile(r"(?<=\d)\s+(?:m|s|g|h|in|cm|mm|km|kg|ft|mi)(?:\s*\^\s*\{?\d\}?)?$")
_FUNCTIONS = re.compile(rf"{FUNCTIONS}|infty|inf|oo")
_LEADING = re.compile(r"^(?:(?:it|he|she|they|is|was|in|on|at|the|a|an|month|day|of)\s+)+", re.IGNORECASE)


def looks_like_math(text: str) -> bool:
    """Whether a text is an expression, no sentence."""
    if len(text) > _LONGEST or "\n" in text or not re.search(r"\d|\\[a-z]|^[a-z]$", text):
        return False
    words = re.findall(r"[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", " ", text))
    return all(_FUNCTIONS.fullmatch(word) for word in words)


def same_quantities(answer: str, expected: str) -> Comparison | None:
    """Of two numbers, see `numbers.same_number`, or expressions; None where it takes a child process.

    An answer that leaves a choice ("0.5 or 1/2") is right if all of it is.
    """
    if _plain(answer) == _plain(expected):
        return True, "equal text"
    alternatives = _OR.split(answer)
    if len(alternatives) > 1:
        verdicts = [same_quantities(each, expected) for each in alternatives]
        return all(verdict is not None and verdict[0] for verdict in verdicts), "one answer or another"
    found, wanted = _readings(answer), _readings(expected)
    if found and wanted:
        reasons = [same_number(*pair) for pair in itertools.product(found, wanted)]
        return any(reasons), next(filter(None, reasons), "different numbers")
    if max(len(answer), len(expected)) > _LONGEST:
        return False, "too long to compare"
    return None


def _plain(quantity: str) -> str:
    return re.sub(r"[\s$]", "", quantity)


def _readings(quantity: str) -> list[Number]:
    """The numbers that a text may be: a clock's time is in hours, and dozens may be what is counted."""
    clock = _CLOCK.fullmatch(quantity.strip())
    texts = [f"{clock[1]} {clock[2]}/60"] if clock else [quantity, *_DOZENS.findall(quantity)]
    return [number for number in map(parse_number, texts) if number is not None]


def same_lists(answer: str, expected: str) -> Comparison:
    """Of two lists of numbers; their order counts unless the reference has them in square brackets."""
    found, wanted = number_list(answer), number_list(expected)
    if expected.startswith("["):
        found, wanted = (sorted(each, key=lambda number: number.value) for each in (found, wanted))
    same = len(found) == len(wanted) and all(map(same_number, found, wanted))
    return same, "equal lists" if same else "different lists"


def number_list(text: str) -> list[Number]:
    """The numbers of a text that has two or more, or brackets, and nothing else; or else none."""
    inner = re.sub(r"^\s*(?:\\?[\[{(])|\\?[\]})]\s*$", "", text)
    numbers = [parse_number(part) for part in re.split(r"\s*,\s+|\s+|,(?!\d{3}(?!\d))", inner.strip())]
    if (inner == text and len(numbers) < 2) or None in numbers:
        return []
    return [number for number in numbers if number is not None]


def same_math(answer: str, expected: str) -> Comparison | None:
    """Of two expressions; None where it takes a computer algebra system to say."""
    if _normal(answer) == _normal(expected):
        return True, "equal text"
    numbers = [parse_number(_without_unit(each)) for each in (answer, expected)]
    if numbers[0] is not None and numbers[1] is not None:
        reason = same_number(numbers[0], numbers[1])
        return bool(reason), reason or "different numbers"
    if is_code(expected) or _is_words(expected) or _is_words(answer):
        return same_words(answer, expected)
    if max(len(answer), len(expected)) > _LONGEST:
        return False, "too long to compare"
    return None


def _without_unit(expression: str) -> str:
    return _SHORT_UNIT.sub("", _WORDS.sub("", expression).replace(r"^\circ", "").strip())


def same_words(answer: str, expected: str) -> Comparison:
    """Of two texts, but for case, articles and punctuation around them."""
    same = _words(answer) == _words(expected)
    return same, "equal text" if same else "different text"


def same_text(answer: str, expected: str) -> Comparison:
    """Of two texts, but for amounts of white space, thousands separators and a final full stop."""
    plain = [
        re.sub(r"(?<=\d),(?=\d{3}\b)", "", " ".join(text.split())).removesuffix(".").rstrip()
        for text in (answer, expected)
    ]
    same = plain[0] == plain[1]
    return same, "same text" if same else "other text"


def _normal(expression: str) -> str:
    """An expression without what makes no difference: spaces, sizes of brackets, kinds of fractions."""
    text = re.sub(r"\\\\(?=[dt]?frac|sqrt)", r"\\", expression)  # a backslash escaped once too often
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"(?<!\\)\\[!,;: ]|~", "", text)
    return re.sub(r"\s+", "", text)


def _is_words(expression: str) -> bool:
    """Whether words, not values, are the answer: even, (C), or anything that is all `\\text{...}`."""
    if _WORDS.fullmatch(expression.strip()) and parse_number(_WORDS.sub(r"\1", expression).strip()) is None:
        return True
    text = expression.strip().strip("()")
    return _WORDY.fullmatch(text) is not None and not _FUNCTIONS.search(text)


def _words(text: str) -> str:
    """A text without case, articles, punctuation and commands around it."""
    text = _WORDS.sub(r"\1", text)
    text = re.sub(r"[\s~]+", " ", re.sub(r"\\[!,;: ]", " ", text)).strip(" .,:;!?()'\"*$").casefold()
    return _LEADING.sub("", text)
