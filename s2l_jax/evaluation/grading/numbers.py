"""Numbers as people and models write them, read exactly, and when two of them are the same answer."""

import dataclasses
import re
from fractions import Fraction

from s2l_jax.evaluation.grading.characters import plain

_LONGEST = 400  # digits, and powers of ten: more is no answer, and slow
_NOISE = Fraction(1, 10**9)  # relative; what is left of sums in double precision is far less
_NOUGHT = Fraction(1, 10**12)  # what such sums leave where 0 is expected is less, too

_THIN = "\u00a0\u2009\u202f"  # no-break spaces that separate thousands
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
}

_SEPARATOR = rf"(?:,|[{_THIN}]|\{{,\}}|,?\\[!,;])"
_WHOLE = rf"(?:\d{{1,3}}(?:{_SEPARATOR}\d{{3}})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d*)?|\.\d+)"
NUMBER = re.compile(
    rf"""
    (?<![A-Za-z0-9_.\\])                             # not within a name or another number
    (?P<sign>(?<![)\]}}\d])[-+]\s?)?                 # 7-3 is 7 and 3
    (?:\\?[$£€¥₹]\s?|USD\s?|Rs\.?\s?)?
    (?P<inner_sign>-\s?)?
    (?:
      (?P<mixed>\d+)?\s{{0,9}}\\[dtc]?frac\s*
        (?:\{{\s*(?P<top_sign>-)?\s*(?P<top>\d+)\s*\}}|\s*(?P<top_digit>\d))\s*
        (?:\{{\s*(?P<bottom>\d+)\s*\}}|(?P<bottom_digit>\d))
    | (?P<with>\d+)(?:\s+|\s*-\s*and\s*-\s*|\s+and\s+)(?P<part>\d+)\s?/\s?(?P<whole>\d+)(?![\d/])
    | (?P<numerator>{_DECIMAL})\s?/\s?(?P<denominator>{_DECIMAL})(?![\d/])
    | (?P<decimal>{_DECIMAL})
      (?:[eE](?P<exponent>[-+]?\d{{1,9}})(?!\d)
        |\s?(?:\\times|\\cdot|[×x*])\s?10\s?(?:\^|\*\*)\s?\{{?(?P<power>[-+]?\d{{1,9}})\}}?)?
    )
    (?P<scales>(?:[\s-]?(?:{"|".join(_SCALES)})\b){{0,3}})
    (?P<percent>\s?(?:\\?%|percent\b|per\ cent\b))?
    """,
    re.VERBOSE,
)

_CODE = re.compile(r"(?!\d+:\d+$)[-+]?(?:\(\d+\)\s?)?\d+(?:(?:[.:/-]|\s|\s?–\s?)\d+)+")  # but a ratio is none


@dataclasses.dataclass(frozen=True)
class Number:
    """A number as it was written.

    Args:
      value: exactly; of 25 % it is 25.
      percent: a percent sign follows.
      is_fraction: written as a fraction, so nothing was rounded.
      unit: what its last digit counts: 1/100 of 1.50; of a fraction that of its decimal form, 0 if that
        never ends.
    """

    value: Fraction
    percent: bool = False
    is_fraction: bool = False
    unit: Fraction = Fraction(1)


def parse_number(text: str) -> Number | None:
    """The number that a text is; None if it is something else, or something more."""
    text = plain(text).strip()
    match = NUMBER.fullmatch(text) if len(text) <= 2 * _LONGEST else None
    return _read(match) if match else None


def is_code(text: str) -> bool:
    """Whether a text of digits is no number: a date, a range, a version, a telephone number, 1/0."""
    text = plain(text).strip()
    looks = _CODE.fullmatch(text) or NUMBER.fullmatch(text)
    return looks is not None and parse_number(text) is None


def same_number(answer: Number, expected: Number) -> str:
    """Why two numbers are the same answer; empty if they are not.

    * They are equal, up to the noise of floating-point sums where one is no whole number.
    * The expected one is no whole number and a decimal of two or more digits, as written, and the answer,
      two or more places longer, rounds to it.
    * Just one has a percent sign, and the two are equal with the sign as a unit or as hundredths.
    """
    if answer.percent != expected.percent:
        plain = [dataclasses.replace(each, percent=False) for each in (answer, expected)]
        hundredths = [
            dataclasses.replace(each, value=each.value / 100, unit=each.unit / 100) if had.percent else each
            for each, had in zip(plain, (answer, expected), strict=True)
        ]
        return same_number(*plain) or same_number(*hundredths)
    a, b = answer.value, expected.value
    if a == b:
        return "equal numbers"
    if a.denominator == b.denominator == 1:
        return ""
    if abs(a - b) <= (_NOISE * abs(b) if b else _NOUGHT):
        return "equal numbers"
    # A whole one with a nought behind the point is a float of JSON, not a rounded number.
    if expected.is_fraction or b.denominator == 1 or abs(b) < 10 * expected.unit:
        return ""
    rounded = abs(a - b) <= expected.unit / 2
    return "equal when rounded" if rounded and answer.unit <= expected.unit / 100 else ""


def _last_place(value: Fraction) -> Fraction:
    """What the last digit of a decimal form counts; 0 if the digits never end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return Fraction(1, 10 ** max(twos, fives)) if rest == 1 else Fraction(0)


def _read(match: re.Match[str]) -> Number | None:
    """The number of a match; None for one too long, or a division by zero."""
    if len(match.group()) > 2 * _LONGEST:
        return None
    part = match.groupdict()
    top = part["top"] or part["top_digit"] or part["part"] or part["numerator"]
    if top:
        bottom = _decimal(part["bottom"] or part["bottom_digit"] or part["whole"] or part["denominator"])
        if not bottom:
            return None
        value = _decimal(part["mixed"] or part["with"] or "0") + _decimal(top) / bottom
        unit = _last_place(value)
    else:
        power = int(part["exponent"] or part["power"] or 0)
        if abs(power) > _LONGEST:
            return None
        ten = Fraction(10) ** power
        value, unit = _decimal(part["decimal"]) * ten, _unit(part["decimal"]) * ten
    signs = (part["sign"] or "", part["inner_sign"] or "", part["top_sign"] or "")
    value *= (-1) ** sum("-" in sign for sign in signs)
    for scale in re.findall("[a-z]+", part["scales"]):
        value, unit = value * _SCALES[scale], unit * _SCALES[scale]
    return Number(value, bool(part["percent"]), is_fraction=bool(top), unit=unit)


def _decimal(text: str) -> Fraction:
    digits, _, places = text.partition(".")
    digits = re.sub(r"\D", "", digits)
    return Fraction(int(digits + places or "0"), 10 ** len(places))


def _unit(text: str) -> Fraction:
    return Fraction(1, 10 ** len(text.partition(".")[2]))
