"""Characters that mean the same as plain ones: minus signs, fractions such as ½, superscripts, roots."""

import re
import unicodedata

FUNCTIONS = "sqrt|pi|log|ln|sin|cos|tan|exp"  # that plain text has without a backslash

_FRACTIONS = "".join(chr(c) for c in range(0xBC, 0x218A) if "<fraction>" in unicodedata.decomposition(chr(c)))
_ABOVE = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
_BELOW = "₀₁₂₃₄₅₆₇₈₉"

_SAME = {ord(c): "-" for c in "\u2010\u2011\u2212\ufe63\uff0d"} | {ord(c): "/" for c in "⁄∕÷"}
_SAME |= {c: chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5E) if c != 0xFF0D}
_DASH_AS_MINUS = re.compile(r"(?:(?<![\w)\]}])–|(?<==)\s?–\s?)(?=[\d.$£€√(\\])")
_RADICAND = r"\s?(?:\(([^()]{1,200})\)|\{([^{}]{1,200})\}|(\d+(?:\.\d+)?|[A-Za-z]))"


def plain(text: str) -> str:
    """A text with plain characters in the place of those: 3½ is `3 1/2`, 5² is `5^{2}`, √16 is `\\sqrt{16}`.

    An en dash is a minus only right before a number and behind none, or behind an equals sign.
    """
    if text.isascii():
        return text
    text = _DASH_AS_MINUS.sub("-", text.translate(_SAME))
    text = re.sub(rf"(\d)?\s?([{_FRACTIONS}])", _fraction, text)
    text = re.sub(rf"[{_ABOVE}]+", lambda found: f"^{{{_normal(found)}}}", text)
    text = re.sub(rf"[{_BELOW}]+", lambda found: f"_{{{_normal(found)}}}", text)
    for root, command in (("√", r"\\sqrt"), ("∛", r"\\sqrt[3]")):
        text = re.sub(root + _RADICAND, rf"{command}{{\1\2\3}}", text)
    return text


def _fraction(found: re.Match[str]) -> str:
    over = unicodedata.normalize("NFKC", found[2]).replace("⁄", "/")
    return f"{found[1]} {over}" if found[1] else found[0].replace(found[2], over)


def _normal(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found.group()).replace("−", "-")
