"""Numbers as answers write them: read, and compared."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from s2l_jax.evaluation.grading.extraction import clean
from s2l_jax.evaluation.grading.numbers import parse_number, same_number


def _groups(digits: str, separator: str) -> str:
    first = len(digits) % 3 or 3
    return separator.join([digits[:first], *(digits[i : i + 3] for i in range(first, len(digits), 3))])


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**12),
    st.integers(0, 999),
    st.sampled_from(["", ",", "{,}", "\\!", ",\\!", "\u202f", "\u00a0"]),
    st.sampled_from(["", "$", "\\$", "€", "£"]),
    st.sampled_from(["", "-", "−", "+"]),
    st.integers(0, 3),
    st.sampled_from(["", "%", "\\%", " percent"]),
    st.sampled_from(["{}", " {} ", "${}$", "\\({}\\)", "**{}**", "{}.", "$$ {} $$"]),
)
def test_a_number_however_it_is_written(
    whole, thousandths, separator, currency, sign, zeros, percent, around
):
    assume(not (currency == "$" and "$" in around))  # it is written as \\$ there
    places = f"{thousandths:03d}".rstrip("0") + "0" * zeros
    plain = f"{whole}.{places}" if places else f"{whole}"
    digits = _groups(str(whole), separator) if separator else str(whole)
    written = f"{sign}{currency}{digits}{'.' + places if places else ''}{percent}"
    expected = parse_number(("-" if sign in ("-", "−") else "") + plain)
    read = parse_number(clean(around.format(written)))
    assert expected is not None
    assert read is not None
    assert read.value == expected.value
    assert same_number(read, expected)
    assert read.percent == bool(percent)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_fractions_and_mixed_numbers(top, bottom):
    plain = parse_number(f"{top}/{bottom}")
    sign, top = ("-" if top < 0 else ""), abs(top)
    assert (
        plain == parse_number(rf"{sign}\frac{{{top}}}{{{bottom}}}") == parse_number(f"{sign}{top} / {bottom}")
    )
    assert plain == parse_number(f"{sign}{top // bottom} {top % bottom}/{bottom}")
    assert plain == parse_number(rf"{sign}{top // bottom}\tfrac{{{top % bottom}}}{{{bottom}}}")


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30))
def test_what_python_prints_is_read_back(value):
    read = parse_number(repr(value))
    assert read is not None
    assert float(read.value) == value
    assert same_number(read, read)


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789.,-+/%$ eE\\{}frac^*×millon", max_size=30))
def test_reading_never_fails(text):
    number = parse_number(text)
    assert number is None or same_number(number, number)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567", "1234567"),
        (".5", "0.5"),
        ("5.", "5"),
        ("-.25", "-0.25"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("1e3", "1000"),
        ("2.5E-2", "0.025"),
        (r"1.5 \times 10^3", "1500"),
        (r"1.5 \cdot 10^{-2}", "0.015"),
        ("1.5 × 10^6", "1500000"),
        ("3.5 million", "3500000"),
        (r"\frac34", "0.75"),
        (r"\dfrac{3}{-4}", None),
        (r"-\frac{3}{4}", "-0.75"),
        (r"\frac{-3}{4}", "-0.75"),
        ("1 and 1/2", "1.5"),
        ("1/0", None),
        ("1,23", None),
        ("12,34,567", None),
        ("1 234", None),
        ("1.2.3", None),
        ("7-3", None),
        ("12 apples", None),
        ("1e999999999", None),
        ("9" * 500, "9" * 500),
        ("9" * 1000, None),
        ("", None),
        ("\0", None),
    ],
)
def test_reading_numbers(text, value):
    number = parse_number(text)
    if value is None:
        assert number is None
    else:
        assert number is not None
        assert number.value == parse_number(value).value


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("18", "18", True),
        ("18.0", "18", True),
        ("18.000000000000004", "18", True),
        ("18.001", "18", False),
        ("1000000", "1000001", False),
        ("1000000000001", "1000000000000", False),
        ("0.30000000000000004", "0.3", True),
        # A decimal reference may be rounded: an answer that is not rounds to it.
        ("2.6666666666666665", "2.67", True),
        ("8/3", "2.67", True),
        ("2.7", "2.67", False),
        ("2.674", "2.67", False),
        ("2.6749", "2.67", True),
        ("2.6751", "2.67", False),
        ("0.3333", "0.3", False),  # one digit is too little to be a rounded number
        # Noughts at the end are digits, too.
        ("1.548", "1.50", False),
        ("1.4997", "1.50", True),
        ("10.149", "10.10", False),
        ("144.957", "145.0", False),
        ("0.951", "1.0", False),
        ("95.1%", "1.0", False),
        ("0.1999", "0.20", True),
        ("1.5480", "1.5", True),
        ("1.5480e3", "1.5e3", False),
        ("0.154%", "0.0015", False),
        ("0.15499%", "0.0015", True),
        ("5.55e-17", "0", True),
        ("0.001", "0", False),
        ("66.67", "67", False),
        ("2.67", "2.6666666666666665", False),
        ("0.333", "1/3", False),
        ("1/3", "2/6", True),
        # A percent sign is a unit, or hundredths; where both or none has one, it makes no difference.
        ("20%", "20", True),
        ("20%", "0.2", True),
        ("0.2", "20%", True),
        ("20", "0.2", False),
        ("20%", "0.2%", False),
        ("0.1%", "10", False),
    ],
)
def test_the_same_number(answer, expected, same):
    assert bool(same_number(parse_number(answer), parse_number(expected))) == same
