"""Responses that are to be a function: completed to a program, which is run with the tests of its task."""

import hashlib
import itertools
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.execution.response_programs import ProgramRun
from s2l_jax.evaluation.sandbox.extraction import fenced_blocks

PASSED = "passed"  # the output of a program whose tests all passed
_LONGEST = 20_000  # characters of a response that are looked at
# How a line without indentation begins, where it goes on a program and is no prose.
_TOP = re.compile(r"(?:async |def |class |import |from |if |@|#|[)\]}]|[A-Za-z_]\w*\s*=[^=])")


class UnitTests(NamedTuple):
    """What a response to a programming task is held to."""

    start: str  # of the program: imports, and the head of the function with its docstring
    function: str  # its name
    code: str  # run after the program; raises where it is wrong


def run_tests(
    responses: Sequence[str], tests: Sequence[UnitTests], *, confined: bool = True
) -> list[ProgramRun]:
    """Run each response with its tests; a run's output is `PASSED`, or its error says why not.

    Args:
      responses: of a model: the function, with or without prose around a fenced block, or what comes after
        the start of it.
      tests: of each.
      confined: see `ProgramPool`.

    Raises:
      InputError: the machine cannot confine programs.
    """
    programs = [complete_program(*pair) for pair in zip(responses, tests, strict=True)]
    # A program that ends by itself before its tests does not print this.
    marks = [hashlib.sha256(program.encode(errors="replace")).hexdigest() for program in programs]
    codes = [
        f"{program}\n\n{each.code}\n\nprint()\nprint({mark!r})\n"
        for program, each, mark in zip(programs, tests, marks, strict=True)
    ]
    with ProgramPool(confined=confined) as pool:
        results = pool.run(codes)
    runs = []
    for program, mark, result in zip(programs, marks, results, strict=True):
        ended = result.stdout.rstrip("\n").rpartition("\n")[2] == mark
        error = "" if ended else "it ended before its tests did"
        error = error if result.ok else result.error or "it failed"
        runs.append(ProgramRun(program, "" if error else PASSED, error))
    return runs


def complete_program(response: str, tests: UnitTests) -> str:
    """The program of a response: its own function after what stands before that in the start, or the start
    with the response as its body.

    Nothing is parsed: what is no Python fails when it is run.
    """
    head = f"def {tests.function}("
    blocks = [code for _, code in fenced_blocks(response[:_LONGEST])]
    code = next((block for block in blocks if head in block), blocks[0] if blocks else response[:_LONGEST])
    if head in code:
        return tests.start.partition(head)[0] + (code if blocks else _without_prose(code))
    body = "\n".join(itertools.takewhile(_is_inner, code.split("\n")))
    if not body.strip():  # the indentation is lost
        body = textwrap.indent(code, "    ")
    return f"{tests.start.rstrip()}\n{body}"


def _without_prose(text: str) -> str:
    """What is a program of a text that no fence parts, by how its lines begin."""
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if _TOP.match(line)), 0)
    return "\n".join(itertools.takewhile(lambda line: _is_inner(line) or _TOP.match(line), lines[first:]))


def _is_inner(line: str) -> bool:
    return not line.strip() or line.startswith((" ", "\t"))
