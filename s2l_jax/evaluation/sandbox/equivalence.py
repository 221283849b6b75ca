"""Whether two mathematical expressions are equal: math-verify, in a child that can be killed."""

import dataclasses
import logging
import re
from typing import Any

from s2l_jax.evaluation.grading.characters import FUNCTIONS, plain

_NAMES = f"{FUNCTIONS}|infty"  # that plain text has without a backslash
# Units in plain text; one letter, or two without meaning, is a name: 3ab is no number of ab.
_UNITS = r"(?:cm|mm|km|kg|ft|lb|oz|ml|mph)(?![A-Za-z])"
_UNIT_WORDS = rf"(?!(?:{_NAMES})\b)[A-Za-z]{{3,}}(?:\s+[A-Za-z]{{2,}})*"
_UNIT_POWER = r"(?:\s*\^\s*\{?\d\}?)?\.?"
_SUBSTITUTIONS = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\limits(?![A-Za-z])", ""),
        (r"(?<=\d)(?:,?\\[!,]|\{,\})(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[!;:, ]|~", " "),
        (r"\\?%|\\\$|\^\s*\{?\\circ\}?|\\degree", ""),
        (r",\s*(?:\\text\s*\{\s*)?(?:and|or)\b\s*\}?", ", "),
        (r"\\[dt]?frac\s*(\\[A-Za-z]+)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:text|mbox|textbf|mathrm|textrm|operatorname)\s*\{[^{}]*\}(?:\s*\^\s*(?:\{\d\}|\d))?\s*$", ""),
        (rf"(?<=[\d}}])(?:\s*{_UNITS}|\s+{_UNIT_WORDS}){_UNIT_POWER}\s*$", ""),
        (r"\\varnothing", r"\\emptyset"),
        (r"(?<![\\A-Za-z])oo(?![A-Za-z])", r"\\infty"),  # this and I are how SymPy prints them
        (r"\*\s*I(?![A-Za-z])", "i"),
        (r"\*\*\s*\(([^()]*)\)", r"^{\1}"),
        (r"\*\*\s*(-?\w+)", r"^{\1}"),
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])log(?:_(\d+)|(2|10)(?=\())", r"\\log_{\1\2}"),
        (r"(?<![\\A-Za-z])(" + _NAMES + r")(?![A-Za-z])", r"\\\1"),
        (r"(?<![\w.])(\d+)\s+(\d+/\d+)(?![\d/])", r"(\1+\2)"),
    )
]
_BARE_SEPARATOR = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # of thousands, where no list or pair is meant
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar)\s*\{(\d+)\}")  # a decimal that never ends
_BASE = re.compile(r"\d\s*_\s*\{?(\d+)\}?\s*$")  # of a number such as 2516_{7}
_SYMBOLS = str.maketrans({"∞": r"\infty ", "·": r"\cdot ", "∈": r"\in "})


def warm_up() -> None:
    """Import what `compare` needs, and build its grammar."""
    logging.disable(logging.CRITICAL)  # math-verify warns about every expression it cannot read
    compare(r"\frac{1}{2}x", "0.5x")


def compare(answer: str, expected: str) -> tuple[bool, str]:
    """Whether `answer` equals `expected`, and a few words why."""
    import math_verify

    bases = [_BASE.search(text) for text in (answer, expected)]
    if bases[0] and bases[1] and bases[0][1] != bases[1][1]:
        return False, "different bases"
    gold, found = _parsed(expected), _parsed(answer)
    if not gold:
        return False, "the reference could not be read"
    if not found:
        return False, "the answer could not be read"
    equal = math_verify.verify(gold, found, timeout_seconds=None)
    return equal, "equal expressions" if equal else "different expressions"


def _parsed(text: str) -> list[Any]:
    import math_verify

    # Its rules for units take the h of 15h for hours; `latex` removes those that are words.
    rules = dataclasses.replace(math_verify.LatexExtractionConfig().normalization_config, units=False)
    return math_verify.parse(
        f"${latex(text)}$",
        [math_verify.LatexExtractionConfig(normalization_config=rules)],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )


def latex(text: str) -> str:
    """An expression in LaTeX, Python or plain text as LaTeX that math-verify reads."""
    text = plain(text).translate(_SYMBOLS)
    if not re.search(r"[(\[]|\\\{", text):
        text = _BARE_SEPARATOR.sub("", text)
    text = _REPEATING.sub(_fraction, text)
    for pattern, by in _SUBSTITUTIONS:
        text = pattern.sub(by, text)
    return text.strip()


def _fraction(repeating: re.Match[str]) -> str:
    """0.1666... as a fraction, from its digits before the point, after it, and those that repeat."""
    whole, places, period = repeating.groups()
    top = int(whole + places + period) - int(whole + places or "0")
    return rf"\frac{{{top}}}{{{10 ** len(places) * (10 ** len(period) - 1)}}}"
