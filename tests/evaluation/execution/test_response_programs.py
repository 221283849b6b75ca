"""What is taken for the program of a response."""

import pytest

from s2l_jax.evaluation.execution import response_programs
from s2l_jax.evaluation.execution.response_programs import find_programs
from s2l_jax.evaluation.sandbox.extraction import extract_program


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("Let us compute.\n```python\nx = 1\nprint(x)\n```\nSo it is 1.", "x = 1\nprint(x)"),
        ("```\nprint(2)\n```", "print(2)"),
        ("```py\nprint(3)", "print(3)"),
        ("```python\nx = 1\n```", "x = 1"),
        ("```python\nprint(1)\n```\nBetter:\n```python\nprint(2)\n```", "print(2)"),
        ("```python\nprint(1)\n```\nIt prints\n```\n1\n```", "print(1)"),
        ("  ```python\n  if True:\n      print(1)\n  ```", "if True:\n    print(1)"),
        ("import math\nprint(math.pi)", "import math\nprint(math.pi)"),
        ("Here is the program:\nx = 3\nprint(x)\nIt prints 3.", "x = 3\nprint(x)"),
        ("# add\nprint(1 + 1)\n\nThe answer is 2.", "# add\nprint(1 + 1)\n"),
        ("The answer is 5.", None),
        ("For x = 3 we get 4. Then print it.", None),
        ("x = 3", None),
        ("```latex\nx = 1\n```", None),
        ("", None),
    ],
)
def test_the_program_of_a_response(response, program):
    assert extract_program(response) == program


@pytest.mark.parametrize(
    "hostile", ["-" * 19000 + "1", "(" * 19000, "x." * 9000 + "x", "not " * 4000, "\0", "\ud800"]
)
def test_extraction_survives_what_parsers_dislike(hostile):
    assert extract_program(f"```python\nprint(1)\ny = {hostile}\n```") is not None
    assert extract_program(f"print(1)\ny = {hostile}") is not None


@pytest.mark.parametrize(
    "hostile",
    [
        "```" + "a" * 10**6,
        "``` " + " " * 10**6,
        ("```" + " " * 1000) * 1000,
        "```\n" * 10**5 + "print(1)",
        "a" + ", a" * 10**6 + "\nprint",
        "a" + " " * 10**6 + "b\nprint",
        "print\n" + " " * 10**6 + "x",
        "x = 1\n" + "\n".join(" " * n + "if print:" for n in range(200)),
        "x = [\n" + "print,\n" * 10**5,
    ],
)
def test_no_text_takes_long_to_look_through(hostile):
    """Each takes hours where the time grows with the square of the length."""
    codes, failures = find_programs([hostile, "print(2)", "no program"])
    assert codes[1] == "print(2)"
    assert not failures


def test_what_takes_too_long_to_look_through_is_said(monkeypatch):
    monkeypatch.setattr(response_programs, "_TIMEOUT", 1e-6)
    runs = response_programs.run_programs(["print(2)", "no program"], confined=False)
    assert runs[0].error == "its program was not found: timed out"
    assert runs[1] is None
