"""The programs in responses: found, run, and what became of them."""

import ast
import dataclasses
import re
import textwrap
import warnings
from collections.abc import Sequence

from s2l_jax.evaluation.execution.programs import ProgramPool

_KEPT_OUTPUT = 4000  # characters of what a program printed
_PYTHON = ("python", "python3", "py")
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_OPENING = re.compile(
    r"(?:import|from|def|class|for|while|if)\b|print\s*\(|#|[A-Za-z_]\w*(?:\s*,\s*\w+)*\s*=[^=]"
)
_MOST_LINES = 300
_MOST_CHARACTERS = 20_000


@dataclasses.dataclass(frozen=True)
class ProgramRun:
    """A response's program and what became of it."""

    code: str
    output: str
    error: str  # "" where it ended well and printed something


def run_programs(texts: Sequence[str]) -> list[ProgramRun | None]:
    """Run the responses that are programs, in sandboxes; None for the others."""
    codes = {i: code for i, text in enumerate(texts) if (code := extract_program(text)) is not None}
    runs: list[ProgramRun | None] = [None] * len(texts)
    with ProgramPool() as pool:
        results = pool.run(list(codes.values()))
    for (i, code), result in zip(codes.items(), results, strict=True):
        output = result.stdout[:_KEPT_OUTPUT]
        error = "" if result.ok else result.error or "it failed"
        runs[i] = ProgramRun(code, output, error or ("" if output.strip() else "it printed nothing"))
    return runs


def extract_program(response: str) -> str | None:
    """The Python program of a response; None if there is none.

    It is the last fenced block that prints: marked as Python, or unmarked and Python by its syntax; or
    the last marked one, if none prints. Where there is no fence, it is the longest run of lines, from
    the first that looks like Python, that is Python by its syntax and prints.
    """
    blocks = [(mark.lower(), textwrap.dedent(code)) for mark, code in _FENCE.findall(response)]
    if blocks:
        marked = [code for mark, code in blocks if mark in _PYTHON]
        printing = [code for mark, code in blocks if mark in (*_PYTHON, "") and _prints(code)]
        found = printing or marked
        return found[-1].strip("\n") if found else None
    lines = response.splitlines()[:_MOST_LINES]
    start = next((i for i, line in enumerate(lines) if _OPENING.match(line)), None)
    if start is None or not any("print" in line for line in lines[start:]):
        return None
    for end in range(len(lines), start, -1):
        code = "\n".join(lines[start:end])
        if _prints(code):
            return code
    return None


def _prints(code: str) -> bool:
    """Whether this is Python, and calls `print`."""
    if "print" not in code or len(code) > _MOST_CHARACTERS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for "\d" in a program's strings
            calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
            return any(isinstance(called, ast.Name) and called.id == "print" for called in calls)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
