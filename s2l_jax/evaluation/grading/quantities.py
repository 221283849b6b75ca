"""The quantities that a text states: numbers and expressions of them, never a part of one."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from s2l_jax.evaluation.grading import claims
from s2l_jax.evaluation.grading.numbers import NUMBER, parse_number
from s2l_jax.evaluation.grading.wording import plain_wording

_FUNCTIONS = "sqrt|pi|log|ln|sin|cos|tan|exp"
_COMMANDS = (
    r"[dtc]?frac|[dt]?binom|sqrt|pi|log|ln|lg|sin|cos|tan|cot|sec|csc|arc(?:sin|cos|tan)|exp|infty|sum|prod|int"
    r"|overline|bar|max|min|gcd|lcm|lim|theta|alpha|beta|gamma|omega|lambda|mu|sigma"
)
_OPERATIONS = r"times|cdot|div|pm|mp|le|ge|leq|geq|lt|gt|ne|neq|over|choose|bmod|mod|ast"
_SIGNS = r"[-+±<>≤≥]|[<>]=|\\(?:pm|mp|le|ge|leq|geq|lt|gt|ne|neq)"  # that may come first
_UNITS = "mghsLlWVNJAKCF"  # of one letter, stuck to a number: 6m is 6, 5x is not 5
_PRODUCTS = re.compile(r"[a-c]{2,3}|[u-z]{2,3}|[p-r]{2,3}|mn|rs")  # of variables: 3ab is not 3

_TOKEN = re.compile(  # a number is tried before these
    rf"""
      (?P<space>(?:\s|\\[,;:!\ ]|~|\\(?:q?quad|left|right|displaystyle)(?![A-Za-z]))+)
    | (?P<stop>\\[()\[\]]|\$)
    | (?P<infix>\*\*|[<>]=|[-+*/^_<>×·≤≥≠±]|(?<=\d):(?=\d)|–(?=\s?\$?\d)|\bx(?=\s?[\d(])|\bor\b(?=\s+[-$\d.\\])
        |\\(?:{_OPERATIONS})(?![A-Za-z]))
    | (?P<open>[(\[{{]|\\\{{|\\l(?:floor|ceil)(?![A-Za-z]))
    | (?P<close>[)\]}}]|\\\}}|\\r(?:floor|ceil)(?![A-Za-z]))
    | (?P<bar>\|)
    | (?P<postfix>!(?!=)|\\?%)
    | (?P<symbol>\\(?:{_COMMANDS})(?![A-Za-z])|(?<![A-Za-z])(?:{_FUNCTIONS})(?![A-Za-z])|[π√∞])
    | (?P<word>\\(?:text|mbox|mathrm|textbf|textrm|operatorname)\s*\{{[^{{}}]*\}}|\\[A-Za-z]+)
    | (?P<name>[A-Za-z][A-Za-z0-9]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_MORE_DIGITS = re.compile(r"(?:[.,'_]\d+)+")
_EQUALS = re.compile(r"(?<![<>!=])=(?![=>])")
_LISTED = re.compile(r",\s+|,(?!\d{3}(?!\d))|;|\\q?quad\b|\s(?:and|or)\s|\\text\s*\{\s*(?:and|or)\s*\}")


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int
    glued: bool  # nothing is between it and the token before


def first_quantity(text: str) -> str | None:
    """How the first quantity of a stated answer is written; of equations, what they end with."""
    text = claims.without_asides(claims.without_dashes(plain_wording(text)))
    for clause in re.split(r",\s|;|:\s|\n", text):
        for each in (claims.claimed(clause), clause):
            for part in (_EQUALS.split(each)[-1], each):
                if (found := next(_quantities(part, formula=True), None)) is not None:
                    return found
    return None


def last_quantity(text: str) -> str | None:
    """How the last quantity of a worked answer is written, before what explains or checks it."""
    text = claims.without_dashes(claims.without_bullets(plain_wording(text)))
    for each in (claims.without_asides(claims.without_checks(text)), text):
        for line in reversed(each.split("\n")):
            for sentence in reversed(re.split(r"(?<=[.!?])\s+(?=[A-Z])", line)):
                found = [*_quantities(claims.without_reasons(sentence))] or [*_quantities(sentence)]
                if found:
                    return found[-1]
    return None


def only_quantity(formula: str) -> str | None:
    """How the quantity that a formula is, but for units and what it equals, is written.

    The whole formula where that has more than one: a list, a pair, hours and minutes.
    """
    text = claims.without_asides(plain_wording(formula))
    if sum(bool(re.search(r"\d", part)) for part in _LISTED.split(text)) > 1:
        return parse_number(text) and text or formula
    found = list(_quantities(_EQUALS.split(text)[-1], formula=True))
    return found[0] if len(found) == 1 else (formula if found else None)


def _quantities(text: str, formula: bool = False) -> Iterator[str]:
    tokens, at = list(_tokens(text)), 0
    while at < len(tokens):
        end = _end_of_run(tokens, at, formula)
        run = tokens[at:end]
        if any(token.kind in ("number", "symbol") for token in run):
            yield _written(run)
        at = max(end, at + 1)


def _tokens(text: str) -> Iterator[_Token]:
    at, glued = 0, False
    while at < len(text):
        found, kind = NUMBER.match(text, at), "number"
        if found is None or found.group()[0] in "+-" or found.end() == at:
            found = _TOKEN.match(text, at)
            assert found is not None  # any character is one
            kind = found.lastgroup or ""
        end = found.end()
        if kind == "number" and (more := _MORE_DIGITS.match(text, end)):
            end = more.end()
        if kind != "space":
            yield _Token(kind, text[at:end].strip(), at, end, glued)
        glued, at = kind != "space", end


def _end_of_run(tokens: Sequence[_Token], start: int, formula: bool) -> int:
    """Where the quantity that begins at a token ends; `start` where none does."""
    end, brackets, wanting = start, [], True  # wanting: an operand has to come
    for at in range(start, len(tokens)):
        token = tokens[at]
        before = tokens[at - 1] if at > 0 else None
        after = tokens[at + 1] if at + 1 < len(tokens) else None
        if token.kind == "stop":
            break
        if brackets:
            if token.kind == "open":
                brackets.append(token.text)
            elif token.kind == "close" or (token.kind == "bar" and brackets[-1] == "|"):
                brackets.pop()
            wanting = False
        elif wanting:
            if token.kind in ("open", "bar"):
                brackets.append(token.text)
            elif token.kind == "infix":
                if not _is_sign(token, before if at == start else None, after):
                    break
                continue
            elif token.kind == "name" and not _is_variable(tokens, at, start):
                break
            elif token.kind not in ("number", "symbol", "name"):
                break
            wanting = False
        elif token.kind == "infix":
            wanting = True
        elif token.kind == "open" and (token.glued or (before and before.kind in ("symbol", "close"))):
            brackets.append(token.text)
        elif token.kind == "postfix" and token.glued and _is_postfix(token, after, formula):
            pass
        elif token.kind == "name" and _is_factor(tokens, at, formula):
            pass
        elif not (token.kind == "symbol" or (token.kind == "number" and before and before.kind == "symbol")):
            break
        if not (wanting or brackets):
            end = at + 1
    return end


def _is_sign(token: _Token, before: _Token | None, after: _Token | None) -> bool:
    hyphen = token.glued and before is not None and before.kind in ("name", "word", "number")
    return (
        re.fullmatch(_SIGNS, token.text) is not None
        and not hyphen
        and after is not None
        and (after.kind in ("number", "symbol", "open", "bar", "infix") or len(after.text) == 1)
    )


def _is_variable(tokens: Sequence[_Token], at: int, start: int) -> bool:
    name = tokens[at].text
    if len(name) != 1:
        return name[0] in "xyzn" and _PRODUCTS.fullmatch(name) is not None
    if at > start:  # behind an operator; of a rate such as $5/h it is a unit
        return tokens[at - 1].text != "/" or name not in _UNITS + "d"
    more = tokens[at + 1 : at + 3]
    return (
        name.islower()
        and len(more) == 2
        and more[0].kind == "infix"
        and (more[1].kind in ("number", "symbol", "open") or len(more[1].text) == 1)
        and (more[0].glued or name != "a")
    )


def _is_factor(tokens: Sequence[_Token], at: int, formula: bool) -> bool:
    token, more = tokens[at], tokens[at + 1 : at + 3]
    if not token.glued:
        return len(token.text) == 1 and (token.text in "xyz" or tokens[at - 1].kind == "symbol" or formula)
    if len(token.text) > 1:
        return _PRODUCTS.fullmatch(token.text) is not None
    is_term = len(more) == 2 and more[0].kind == "infix" and more[0].text != "/" and more[1].kind == "number"
    return token.text not in _UNITS or is_term


def _is_postfix(token: _Token, after: _Token | None, formula: bool) -> bool:
    """Whether an exclamation mark is a factorial."""
    if token.text != "!" or formula:
        return True
    return after is not None and (after.kind != "name" or after.text[0].islower())


def _written(run: Sequence[_Token]) -> str:
    """A run of tokens; of an expression without currencies and thousands separators."""
    if len(run) > 2 and run[0].text in "([{" and run[-1].text in ")]}":
        inner = _written(run[1:-1])
        if parse_number(inner):
            return inner
    if all(token.kind in ("number", "infix") for token in run) and sum(t.kind == "number" for t in run) == 1:
        if parse_number(text := "".join(token.text for token in run)):
            return text
    return "".join(_between(run, i) + _plain_token(token) for i, token in enumerate(run))


def _between(run: Sequence[_Token], i: int) -> str:
    """What is written before a token: a space, or the sign that (2)(3) leaves out."""
    if i == 0:
        return ""
    index = i > 1 and run[i - 2].text == "_"  # of a logarithm
    if run[i].text == "(" and run[i].glued and not index and (run[i - 1].kind == "number" or run[i - 1].text == ")"):
        return r" \cdot "
    return "" if run[i].glued else " "


def _plain_token(token: _Token) -> str:
    if token.kind == "infix":
        return {"x": r"\times ", "–": "-"}.get(token.text, token.text)
    number = parse_number(token.text) if token.kind == "number" else None
    if number is None or number.is_fraction or number.percent:
        return token.text
    value = number.value
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.12g}"
