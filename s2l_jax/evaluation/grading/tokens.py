"""A text as tokens: numbers, the signs of formulas, names of variables, and words."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from s2l_jax.evaluation.grading.characters import FUNCTIONS
from s2l_jax.evaluation.grading.numbers import NUMBER

_SYMBOLS = (
    r"[dtc]?frac|[dt]?binom|sqrt|pi|log|ln|lg|sin|cos|tan|cot|sec|csc|arc(?:sin|cos|tan)|exp|infty|sum|prod"
    r"|int|overline|bar|max|min|gcd|lcm|lim|theta|alpha|beta|gamma|omega|lambda|mu|sigma"
)
_OPERATIONS = r"times|cdot|div|pm|mp|le|ge|leq|geq|lt|gt|ne|neq|over|choose|bmod|mod|ast"

_TOKEN = re.compile(  # a number is tried before these
    rf"""
      (?P<space>(?:\s|\\[,;:!\ ]|~|\\(?:q?quad|left|right|displaystyle)(?![A-Za-z]))+)
    | (?P<stop>\\[()\[\]]|\$|<<|>>)
    | (?P<infix>\*\*|[<>]=|[-+*/^_<>×·≤≥≠±]|(?<=\d):(?=\d)|–(?=\s?\$?\d)|\bx(?=\s?[\d(])
        |\bor\b(?=\s+[-$\d.\\])|\\(?:{_OPERATIONS})(?![A-Za-z]))
    | (?P<open>[(\[{{]|\\\{{|\\l(?:floor|ceil)(?![A-Za-z]))
    | (?P<close>[)\]}}]|\\\}}|\\r(?:floor|ceil)(?![A-Za-z]))
    | (?P<bar>\|)
    | (?P<postfix>!(?!=)|\\?%)
    | (?P<symbol>(?:\\(?:{_SYMBOLS})|(?<![A-Za-z\\])(?:log(?:2|10)(?=\()|{FUNCTIONS}))(?![A-Za-z])
        (?:_(?:\d+|[A-Za-z]|\{{[^{{}}]{{0,100}}\}}))?|[π√∞])                 # with its base: log_2
    | (?P<word>\\(?:text|mbox|mathrm|textbf|textrm|operatorname)\s*\{{[^{{}}]{{0,300}}\}}|\\[A-Za-z]+)
    | (?P<name>[A-Za-z][A-Za-z0-9]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_MORE_DIGITS = re.compile(r"(?:[.,'_]\d+)+")


class Token(NamedTuple):
    """A part of a text.

    Args:
      kind: "number", or the name of a group of `_TOKEN`, but no space.
      text: as it is written.
      glued: nothing is between it and the token before.
    """

    kind: str
    text: str
    glued: bool


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text; a number is one with its currency, scale and percent sign, but no sign before."""
    at, glued = 0, False
    while at < len(text):
        found, kind = NUMBER.match(text, at), "number"
        if found is None or found.group()[0] in "+-":
            found = _TOKEN.match(text, at)
            assert found is not None  # any character is one
            kind = found.lastgroup or ""
        end = found.end()
        if kind == "number" and (more := _MORE_DIGITS.match(text, end)):
            end = more.end()  # 1.2.3 is no number, and 1.2 no part of it
        if kind != "space":
            yield Token(kind, text[at:end].strip(), glued)
        glued, at = kind != "space", end
