"""Graders: what counts as equal, and what cannot hang or crash them."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax import evaluation
from s2l_jax.errors import InputError
from s2l_jax.evaluation.grading import comparison
from s2l_jax.evaluation.grading import grader as grading
from s2l_jax.evaluation.grading.answer_types import ANSWER_TYPES
from s2l_jax.evaluation.grading.extraction import reference_answers
from s2l_jax.evaluation.grading.grader import Grader
from s2l_jax.evaluation.grading.numbers import parse_number
from s2l_jax.evaluation.grading.references import say_sentences


def quick_verdict(answer_type, response, reference):
    """The verdict as far as it takes no child process; None for a reference of another type."""
    return next(iter(grading._verdicts(ANSWER_TYPES[answer_type], response, reference)), None)


@pytest.fixture(scope="module")
def grader():
    with Grader(1, timeout=10) as grader:
        yield grader


# Equivalence of the kind that Hendrycks' MATH tests, PRM800K's grader, ToRA's and Minerva's decide, in
# expressions of our own. The last field says where their verdict is another one.
EQUIVALENT = [
    (r"\tfrac{1}{3} +\! \frac1{45}", r"\dfrac{1}{3} +\frac{1}{45}", ""),
    (r"\tfrac{1}{3}", r"\\dfrac{1}{3}", ""),
    (r"12\text{ units}", "12 ", ""),
    ("12", r"\$12", ""),
    (r"\left(x-3\right)\left(x+3\right)", "(x-3)(x+3)", ""),
    ("0.2", ".2", ""),
    (r"20\%", "20", ""),
    (r"7\sqrt{5} + \sqrt9", r"7\sqrt5 + \sqrt{9}", ""),
    (r"\frac35i", r"\frac{3}{5}i", ""),
    (r"\tfrac94", r"\frac{9}{4}", ""),
    ("1/4", r"\frac{1}{4}", ""),
    ("9, 5, -3", "5, 9, -3", "MATH: no"),
    ("0.2, 5, 3", "5, .2, 3", "MATH: no"),
    ("2/4", r"\frac{1}{2}", "MATH, PRM800K: no"),
    (r"2 \cdot 3", "6", "MATH, PRM800K: no"),
    ("(x+1)^2", "x^{2}+2x+1", "MATH: no"),
    ("3 million", "3,000,000", ""),
    ("7 3/4", r"\frac{31}{4}", ""),
    (r"7\frac{3}{4}", r"\frac{31}{4}", ""),
    ("7.75", r"7\frac{3}{4}", ""),
    ("navin", r"\text{Navin}", ""),
    ("30 degrees", r"30^\circ", ""),
    ("5 cm", "5", ""),
    (r"5 \text{ cm}^2", "5", ""),
    (r"\frac{5}{2} square feet", r"\frac{5}{2}", ""),
    ("15*h", "15h", ""),
    (r"\sqrt{8}", r"2\sqrt{2}", ""),
    ("2*sqrt(2)", r"2\sqrt{2}", ""),
    (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}", ""),
    (r"\tan^2(y)+1", r"\sec^2(y)", ""),
    ("0.0833333333333333", r"\frac{1}{12}", ""),
    (r"(1,\frac{9}{2})", "(1,4.5)", ""),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", ""),
    (r"\begin{bmatrix} 1/2 \\ 2 \end{bmatrix}", r"\begin{pmatrix}0.5\\2\end{pmatrix}", ""),
    (r"(-\infty,0)\cup(0,\infty)", r"(-\infty, 0) \cup (0, \infty)", ""),
    ("x = 5", "5", ""),
    ("5", "x=5", ""),
    (r"x\in[0,1]", "[0,1]", ""),
    ("2x+3", "y=2x+3", ""),
    ("y = 2x", "2x - y = 0", "MATH, PRM800K: no"),
    ("2516", "2516_{7}", "MATH: no"),
    (r"3 \text{ or } 4", "3,4", ""),
    ("4 and 3", "3,4", "MATH: no"),
    (r"\{3,4\}", "3,4", "MATH: no"),
    ("(C)", r"\text{(C)}", ""),
    ("C", r"\text{(C)}", "MATH: no"),
    ("32,760", r"32,\!760", ""),
    ("x^2-2x+1", "1-2x+x^2", "MATH: no"),
    ("6 - 5i", "-5i+6", "MATH: no"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", "MATH: no"),
    ("10^{-3}", "0.001", ""),
    (r"\pm 2", "2, -2", "MATH: no"),
    (r"\varnothing", r"\emptyset", "MATH: no"),
    (r"0.1\overline{6}", r"\frac16", "MATH: no"),
    ("6 m^2", "6", "MATH: no"),
    ("6 in", r"6\text{ in}", "MATH: no"),
    ("2 + 3*I", "2+3i", "MATH: no"),
    ("oo", r"\infty", "MATH: no"),
    ("101_{2}", "101_2", "MATH: no"),
    ("x < 3", "3 > x", "MATH: no"),
    ("4:30 P.M.", r"\text{4:30 p.m.}", ""),
    (r"1.5 \times 10^3", "1500", ""),
    (r"12\%", "0.12", "MATH, PRM800K: no"),
    ("2*b**3 + 14*b**2", "14b^2+2b^3", ""),
]
DIFFERENT = [
    (r"\tfrac{1}{3} + \frac1{45}", r"\frac{1}{3} + 2/5", ""),
    ("9, 5, 3", "5, 11, 3", ""),
    (r"12\text{ units}", "120 ", ""),
    ("3x - 2y + 5z + 1 = 0", "x + y - z + 4 = 0", ""),
    ("(1,2)", "(2,1)", ""),
    ("[1,2]", "(1,2)", ""),
    ("0.333", r"\frac{1}{3}", ""),
    (r"(-\infty,0]", r"(-\infty,0)", ""),
    ("6.28", r"2\pi", ""),
    ("B", r"\text{(C)}", ""),
    (r"\text{odd}", r"\text{even}", ""),
    ("x^2-2x", "x^2-2y", ""),
    ("2*b**3 + 14*b", "14b^2+2b^3", ""),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", ""),
    ("12", "0.12", ""),
    (r"\sqrt{2}", r"-\sqrt{2}", ""),
    ("3ab", "3cd", ""),
    ("101_3", "101_2", ""),
    ("6m", "6", "math-verify: m is a unit"),
    (r"0.\overline{3}", "0.3", ""),
    ("-oo", r"\infty", ""),
    ("3 xy", "3 xz", ""),
    ("15*h", "15", ""),
    ("3", "3, 4", ""),
    (r"x \ge 3", "x > 3", ""),
    (r"e^{i\pi/3}", r"\frac{1}{2}+\frac{\sqrt{3}}{2}i", "equal, but i is read as a name beside e"),
    ("", r"\frac{x}{2}", ""),
]


def test_published_kinds_of_equivalence(grader):
    cases = [(a, b, True) for a, b, _ in EQUIVALENT] + [(a, b, False) for a, b, _ in DIFFERENT]
    verdicts = grader.grade("math", [a for a, _, _ in cases], [b for _, b, _ in cases])
    assert [v for v, (_, _, same) in zip(verdicts, cases, strict=True) if v.correct != same] == []
    for (a, b, _), verdict in zip(cases, verdicts, strict=True):  # the same is compared, so found
        assert quick_verdict("math", rf"So we have $\boxed{{{a}}}$.", b).answer == verdict.answer


@pytest.mark.parametrize(
    ("answer_type", "response", "reference", "correct"),
    [
        ("number", "It is $18.00 a day.", "18", True),
        ("number", "So 18 eggs. The answer is 20.", "18", False),
        ("number", "nothing", "18", False),
        ("number", "18", "It takes 3 * 6 = 18.\n#### 18", True),
        ("number", "#### 1,23", "#### 123", False),
        ("any", "B", "B", True),
        ("any", "The answer is (A).", "B", False),
        ("any", "No, it is not.", "False", True),
        ("any", "Yes", "False", False),
        ("any", "3, 5", "[3, 5]", True),
        ("any", "[5, 3]", "[3, 5]", True),
        ("any", "[3]", "[3, 5]", False),
        ("any", "7, 1, -1", "7 1 -1", True),
        ("any", "1 7 -1", "7 1 -1", False),
        ("any", "The answer is -20x", "-20*x", True),
        ("any", "The answer is 20x", "-20*x", False),
        ("any", "It ends on Friday. The answer is Friday.", "Friday", True),
        ("any", "The answer is on friday.", "Friday", True),
        ("any", "The answer is Monday.", "Friday", False),
        ("any", "a   b\tc", "a b c", True),
        ("any", "Paris", "A city on the Seine", False),
        ("any", "1363", "1363.0", True),
        ("any", "", "1", False),
        ("choice", "The answer is B) tree", "B", True),
        ("choice", "The answer is B", "B) tree", True),
        ("choice", "The answer is A", "B) tree", False),
        ("yesno", "No.", "Yes, it is.", False),
        ("number", "18", "18 dollars", True),
        ("number", "18 dollars", "$18", True),
        ("number", "4", r"\sqrt{16}", True),
        ("number", "16", r"\sqrt{16}", False),
        ("number", "3", "x = log_2(8)", True),
        ("number", "5", "total = 5 apples", True),
        ("any", "2024-01-05", "2024-01-05", True),
        ("any", "2023-01-04", "2024-01-05", False),  # the same difference
        ("any", "6:4", "3:2", True),
        ("yesno", "Yes", "Yeah, it is.", True),
        ("yesno", "The answer is true", "yes", True),
        ("math", r"\boxed{\text{east}}", "East", True),
        ("math", "", r"\frac12", False),
    ],
)
def test_verdicts(grader, answer_type, response, reference, correct):
    (verdict,) = grader.grade(answer_type, [response], [reference])
    assert verdict.correct == correct, verdict
    assert verdict.reason


def test_a_verdict_says_what_was_compared(grader):
    (verdict,) = grader.grade("number", ["He pays 3 * 6 = 18 dollars."], ["It is 6 * 3.\n#### 18"])
    assert verdict == grading.Verdict(True, "18", "18", "equal text")


def test_bad_arguments(grader):
    with pytest.raises(InputError, match="numbr"):
        grader.grade("numbr", [], [])
    with pytest.raises(InputError, match="1 responses for 0 references"):
        grader.grade("any", ["1"], [])
    assert all(grader.grade(each, [], []) == [] for each in ANSWER_TYPES)


@pytest.mark.parametrize(
    ("answer_type", "reference", "message"),
    [
        ("number", "She adds what she has to what he has and gets 7.", "is no number"),
        ("number", "Friday", "is no number"),
        ("number", "3, 4", "is no number"),
        ("number", "n + 1", "is no number"),
        ("number", "see page 12", "is no number"),
        ("number", "Chapter 3", "is no number"),
        ("number", "about 12", "is no number"),
        ("number", "COVID-19", "is no number"),
        ("number", "F-16", "is no number"),
        ("number", "2024-01-05", "is no number"),
        ("number", "1/2/2024", "is no number"),
        ("number", "12:30:15", "is no number"),
        ("number", "555-1234", "is no number"),
        ("number", "10–12 days", "is no number"),
        ("number", "10-12", "is no number"),
        ("number", "192.168.0.1", "is no number"),
        ("number", "0x1F", "is no number"),
        ("number", "1/0", "is no number"),
        ("number", r"\frac{3}{0}", "is no number"),
        ("number", "> 5", "is no number"),
        ("yesno", "Yes and no.", "is neither yes nor no"),
        ("yesno", "No. 5", "is neither yes nor no"),
        ("choice", "tree", "is no letter"),
        ("choice", "7", "is no letter"),
        ("yesno", "maybe", "is neither yes nor no"),
    ],
)
def test_references_of_another_type_are_refused(grader, answer_type, reference, message):
    good = {"number": "7", "choice": "B", "yesno": "no"}[answer_type]
    with pytest.raises(InputError, match=rf'reference 2: .*{message}.*2 of 3 are none.*"any"'):
        grader.grade(answer_type, ["7"] * 3, [good, reference, reference])


def test_sentences_as_references_are_counted(capsys):
    sentence = "He adds the three he had to the four that he got."
    for answer_type, references, count in (
        ("any", ["7", sentence, f"{sentence}\n#### 7"], 1),
        ("any", ["So she has 3 + 4 = 7 apples", "Friday"], 1),
        ("math", [r"\frac{1}{2} \text{ cm}", sentence], 1),
        ("any", ["7", "a city on the Seine", "B"], 0),
        ("exact", [sentence], 0),
    ):
        say_sentences(answer_type, references)
        said = capsys.readouterr().err
        assert (f"{count} of {len(references)} references are sentences" in said) == bool(count), said


def test_grading_by_the_name_of_a_benchmark():
    assert evaluation.grade("gsm8k", "So it is 18.\n#### 18", "#### 18") is True
    assert evaluation.grade("math", r"\boxed{0.5}", r"$\boxed{\frac{1}{2}}$") is True
    assert evaluation.grade("svamp", "16", "18") is False
    with pytest.raises(InputError, match="gsm8k"):
        evaluation.grade("gsm8", "1", "1")


# What is slow or hostile.

_SLOW = [
    "(" * 900,
    "9^{9^{9^{9}}}",
    r"\binom{1000000000}{100000000}",
    "10!!!!!!",
    "999999999!",
    "(x+y+z+w)^{200}",
]
_ODD = [
    "(" * 200,  # the parser takes cubic time; what is too slow is in _SLOW
    r"\boxed{" * 500,
    r"\frac{" * 140,
    r"\sqrt{" * 140 + "2" + "}" * 140,
    "x" * 10**6,
    "1" * 10**6,
    "1," * 10**4,
    "$" * 10**5,
    "answer is " * 10**4,
    "\0",
    "\ud800",
    "𝟙𝟚",
    "²",
    "٣",
    "1/0",
    r"\frac{1}{0}",
    r"\infty - \infty",
    "nan",
    "__import__('os').system('touch hacked')",
    r"\input{/etc/passwd}",
]


def test_slow_expressions_are_given_up():
    with Grader(1, timeout=0.4) as grader:
        grader.grade("math", ["2x"], ["x+x"])
        begun = time.monotonic()
        verdicts = grader.grade("math", [*_SLOW, "2x"], [r"\frac{x}{2}+1"] * len(_SLOW) + ["x+x"])
        seconds = time.monotonic() - begun
    assert [verdict.correct for verdict in verdicts] == [False] * len(_SLOW) + [True]
    assert {verdict.reason for verdict in verdicts[:-1]} <= {"timed out", "the comparison crashed"}
    assert seconds < 20 * len(_SLOW)  # each is stopped; without a stop the first alone would run for ever


@pytest.mark.parametrize("answer_type", ANSWER_TYPES)
def test_odd_responses_are_only_wrong(grader, answer_type):
    reference = {"number": "7", "choice": "B", "yesno": "yes"}.get(answer_type, r"\frac{x}{2}+1")
    for verdict in grader.grade(answer_type, _ODD, [reference] * len(_ODD)):
        assert not verdict.correct
    for odd in _ODD:
        if ANSWER_TYPES[answer_type].expected(odd):
            grader.grade(answer_type, ["7"], [odd])
    assert grader.grade(answer_type, [reference], [reference])[0].correct


_REPEATED = [
    " ", "\u00a0", ".", ". ", "\\[", "\\(", "\\boxed{", "$", "$$", "**", "1 ", "1,", "1/", "1 and ",
    "\\frac", "\\frac{1}",
    "answer is ", "answer *", "(A", "\\text{", "a'", "in the ", "{", "[1,", "10^", "\\left", "Rs. ", "~",
]  # fmt: skip


@pytest.mark.parametrize("piece", _REPEATED)
def test_long_repetition_takes_no_child_and_no_quadratic_time(piece):
    for text in (piece * 200_000, f"answer is 1{piece * 200_000}x"):
        for answer_type, reference in (("number", "7"), ("math", r"\frac{x}{2}"), ("any", "two words")):
            assert quick_verdict(answer_type, text, reference).reason
            quick_verdict(answer_type, reference, text)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text("\\{}$^_()[]0123456789abx+-*/.,%= \nfracboxedtext", max_size=60))
def test_any_text_gets_a_verdict(response, reference):
    for answer_type in ANSWER_TYPES:
        if ANSWER_TYPES[answer_type].expected(reference):
            assert quick_verdict(answer_type, response, reference).reason
            assert quick_verdict(answer_type, reference, reference).reason


# The development data.

FILES = {
    "gsm8k.jsonl": ("number", "answer"),
    "math.jsonl": ("math", "solution"),
    "numglue.json": ("any", "answer"),
    "svamp.json": ("number", "Answer"),
    "mathematics.json": ("any", "answer"),
    "simuleq.json": ("number", "answer"),
}


def _references(data_dir, name: str) -> list[str]:
    text = (data_dir / "eval" / name).read_text()
    rows = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    return [str(row[FILES[name][1]]) for row in rows]


@pytest.mark.parametrize("name", FILES)
def test_references_against_themselves(grader, data_dir, name):
    references = _references(data_dir, name)
    verdicts = grader.grade(FILES[name][0], references, references)
    assert [verdict for verdict in verdicts if not verdict.correct] == []
    bare = grader.grade(FILES[name][0], [f"The answer is {v.expected}." for v in verdicts], references)
    assert sum(verdict.correct for verdict in bare) >= 0.995 * len(bare)


@pytest.mark.parametrize("name", FILES)
def test_references_against_another_row(grader, data_dir, name):
    references = _references(data_dir, name)
    if name == "math.jsonl":
        references = references[::10]  # 500: expressions take milliseconds
    others = references[1:] + references[:1]
    verdicts = grader.grade(FILES[name][0], others, references)
    odd = [v for v in verdicts if v.correct and v.answer != v.expected]
    assert len(odd) < 0.01 * len(verdicts)


def test_gsm8k_worked_answers(grader, data_dir):
    solutions = _references(data_dir, "gsm8k.jsonl")
    answers = [solution.rsplit("####", 1)[1].strip() for solution in solutions]
    assert sum(v.correct for v in grader.grade("number", solutions, answers)) == 1319
    phrased = [solution.replace("\n#### ", "\nThe answer is $") + "." for solution in solutions]
    assert sum(v.correct for v in grader.grade("number", phrased, answers)) == 1319


def test_expressions_of_math_without_the_quick_path(grader, data_dir, monkeypatch):
    references = [reference_answers(text)[0] for text in _references(data_dir, "math.jsonl")]
    hard = sorted(
        {text for text in references if parse_number(text) is None and not comparison._is_words(text)}
    )
    hard = hard[::5]
    monkeypatch.setattr(comparison, "_normal", lambda text: object())
    verdicts = grader.grade("math", hard, hard)
    wrong = [verdict for verdict in verdicts if not verdict.correct]
    assert len(wrong) <= 0.005 * len(hard), wrong
