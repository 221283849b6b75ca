"""The quantities that a text states: numbers and expressions of them, never a part of one."""

import re
from collections.abc import Iterator, Sequence

from s2l_jax.evaluation.grading import claims
from s2l_jax.evaluation.grading.numbers import parse_number
from s2l_jax.evaluation.grading.tokens import Token, tokens
from s2l_jax.evaluation.grading.wording import plain_wording

_SIGNS = re.compile(r"[-+±<>≤≥]|[<>]=|\\(?:pm|mp|le|ge|leq|geq|lt|gt|ne|neq)")  # that may come first
_UNITS = "mghsLlWVNJAKCF"  # of one letter, stuck to a number: 6m is 6, 5x is not 5
_PRODUCTS = re.compile(r"[a-c]{2,3}|[u-z]{2,3}|[p-r]{2,3}|mn|rs")  # of variables: 3ab is not 3
_LONGEST, _LONGEST_END = 1000, 4000  # characters of a stated answer, of the end of a worked one
_MOST_IN_BRACKETS = 50  # tokens; more are no quantity, and would take quadratic time

EQUALS = re.compile(r"(?<![<>!=])=(?![=>])")
_LISTED = re.compile(r",\s+|,(?!\d{3}(?!\d))|;|\\q?quad\b|\s(?:and|or)\s")


def first_quantity(text: str) -> str | None:
    """How the first quantity of a stated answer is written; of equations, what they end with."""
    text = claims.without_asides(claims.without_dashes(plain_wording(text[:_LONGEST])))
    for clause in re.split(r",\s|;|:\s|\n", text):
        for each in (claims.claimed(clause), clause):
            for part in (EQUALS.split(each)[-1], each):
                if (found := next(_quantities(part), None)) is not None:
                    return found
    return None


def last_quantity(text: str) -> str | None:
    """How the last quantity of a worked answer is written, before what explains or checks it."""
    text = claims.without_dashes(claims.without_bullets(plain_wording(text[-_LONGEST_END:])))
    for each in (claims.without_asides(claims.without_checks(text)), text):
        for line in reversed(each.split("\n")):
            for sentence in reversed(re.split(r"(?<=[.!?])\s+(?=[A-Z])", line)):
                sentence = sentence.rstrip(' !*"')  # 18! is an exclamation there
                if found := [*_quantities(claims.without_reasons(sentence))] or [*_quantities(sentence)]:
                    return found[-1]
    return None


def only_quantity(formula: str) -> str | None:
    """How the quantity that a formula is, but for units and what it equals, is written.

    The whole formula where that has more than one, as a list and a pair have.
    """
    if len(formula) > _LONGEST:
        return formula
    text = claims.without_asides(plain_wording(formula))
    if sum(bool(re.search(r"\d", part)) for part in _LISTED.split(text)) > 1:
        return text if parse_number(text) else formula
    found = list(_quantities(EQUALS.split(text)[-1], formula=True))
    return found[0] if len(found) == 1 else (formula if found else None)


def _quantities(text: str, formula: bool = False) -> Iterator[str]:
    """The longest runs of tokens that are expressions with a number; `formula`: letters are variables."""
    found, at = list(tokens(text)), 0
    while at < len(found):
        end = _end_of_run(found, at, formula)
        if any(token.kind in ("number", "symbol") for token in found[at:end]):
            yield _written(found[at:end])
        at = max(end, at + 1)


def _end_of_run(text: Sequence[Token], start: int, formula: bool) -> int:
    """Where the expression that begins at a token ends; `start` where none does."""
    end, at, wanting = start, start, True  # wanting: an operand has to come
    while at < len(text):
        token, following = text[at], at + 1
        before = text[at - 1] if at > start else None
        if token.kind in ("open", "bar") and (wanting or _is_argument(token, before)):
            group = _end_of_group(text, at)
            if group is None:
                break
            following, wanting = group, False
        elif token.kind == "infix":
            if wanting and not _is_sign(text, at, start):
                break
            wanting = True
        elif wanting:
            if token.kind not in ("number", "symbol") and not _is_variable(text, at, start):
                break
            wanting = False
        elif not _goes_on(text, at, formula):
            break
        at = following
        if not wanting:
            end = at
    return end


def _end_of_group(text: Sequence[Token], start: int) -> int | None:
    """Behind the bracket that closes the one at a token; None where it holds words, or too much."""
    depth = 0
    for at in range(start, min(start + _MOST_IN_BRACKETS, len(text))):
        token = text[at]
        is_word = token.kind == "name" and len(token.text) > 2 and not _PRODUCTS.fullmatch(token.text)
        if token.kind == "stop" or is_word:
            return None
        if token.kind == "open" or at == start:
            depth += 1
        elif token.kind == "close" or (token.kind == "bar" and text[start].kind == "bar"):
            depth -= 1
        if depth == 0:
            return at + 1
    return None


def _is_argument(token: Token, before: Token | None) -> bool:
    """Whether a bracket goes with what is before: 2(3 + 4), log (8)."""
    return token.kind == "open" and (
        token.glued or (before is not None and before.kind in ("symbol", "close"))
    )


def _is_sign(text: Sequence[Token], at: int, start: int) -> bool:
    """Whether an operator before an operand is a sign; the hyphen of pre-18 is none."""
    token, after = text[at], text[at + 1 : at + 2]
    if at == start:
        allowed = not (token.glued and at > 0 and text[at - 1].kind in ("name", "word", "number"))
    else:
        allowed = at - 1 == start or text[at - 2].kind != "infix"  # 3 * -5, but no third one
    is_operand = any(
        each.kind in ("number", "symbol", "open", "bar") or len(each.text) == 1 for each in after
    )
    return allowed and is_operand and _SIGNS.fullmatch(token.text) is not None


def _is_variable(text: Sequence[Token], at: int, start: int) -> bool:
    """Whether a name where an operand has to come is one, and no word."""
    token, more = text[at], text[at + 1 : at + 3]
    name = token.text
    if token.kind != "name":
        return False
    if len(name) > 1:
        return name[0] in "xyzn" and _PRODUCTS.fullmatch(name) is not None
    if at > start:  # behind an operator; of a rate such as $5/h it is a unit
        return text[at - 1].text != "/" or name not in _UNITS + "d"
    if more and more[0].text == "(" and more[0].glued:
        return True  # f(2)
    is_term = len(more) == 2 and more[0].kind == "infix" and (more[0].glued or name != "a")
    return (
        name.islower()
        and is_term
        and (more[1].kind in ("number", "symbol", "open") or len(more[1].text) == 1)
    )


def _goes_on(text: Sequence[Token], at: int, formula: bool) -> bool:
    """Whether a token behind an operand belongs to it: 5!, 2 pi, 5x; not the unit of 6m."""
    token, before, more = text[at], text[at - 1], text[at + 1 : at + 3]
    if token.kind in ("symbol", "postfix"):
        return token.kind == "symbol" or token.glued
    if token.kind == "number":
        return before.kind == "symbol"
    if token.kind != "name":
        return False
    if not token.glued:
        return len(token.text) == 1 and (token.text in "xyz" or before.kind == "symbol" or formula)
    if len(token.text) > 1:
        return _PRODUCTS.fullmatch(token.text) is not None
    is_term = len(more) == 2 and more[0].kind == "infix" and more[0].text != "/" and more[1].kind == "number"
    return token.text not in _UNITS or is_term


def _written(run: Sequence[Token]) -> str:
    """A run of tokens as text; of an expression without currencies and thousands separators."""
    if len(run) > 2 and run[0].text in "([{" and run[-1].text in ")]}":
        inner = _written(run[1:-1])
        if parse_number(inner):
            return inner
    as_it_is = "".join(token.text for token in run)
    if sum(token.kind == "number" for token in run) == 1 and parse_number(as_it_is):
        return as_it_is
    return "".join(_between(run, i) + _plain_token(token) for i, token in enumerate(run)).rstrip(".")


def _between(run: Sequence[Token], i: int) -> str:
    """What is written before a token: a space, or the sign that (2)(3) leaves out."""
    if i == 0:
        return ""
    token, before = run[i], run[i - 1]
    if token.text == "(" and token.glued and (before.kind == "number" or before.text == ")"):
        return r" \cdot "
    return "" if token.glued else " "


def _plain_token(token: Token) -> str:
    if token.kind == "infix":
        return {"x": r"\times ", "–": "-"}.get(token.text, token.text)
    number = parse_number(token.text) if token.kind == "number" else None
    if number is None or number.is_fraction or number.percent or re.fullmatch(r"[\d.]+", token.text):
        return token.text
    value = number.value
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.12g}"
