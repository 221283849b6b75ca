"""The program of a response: found line by line, so that no text takes long to look through."""

import ast
import re
import textwrap
import warnings

_PYTHON = ("python", "python3", "py")
_OPENING = re.compile(
    r"(?:import|from|def|class|for|while|if)\b|print\s*\(|#|[A-Za-z_]\w*(?:\s*,\s*\w+)*\s*=[^=]"
)
_WORD = re.compile(r"\w*")
_MOST_LINES = 300
_MOST_CHARACTERS = 20_000


def extract_program(response: str) -> str | None:
    """The Python program of a response; None if there is none.

    It is the last fenced block that prints: marked as Python, or unmarked and Python by its syntax; or
    the last marked one, if none prints. Where there is no fence, it is the longest run of lines, from
    the first that looks like Python, that is Python by its syntax and prints.
    """
    if blocks := fenced_blocks(response):
        last = None
        for mark, code in reversed(blocks):
            if mark in (*_PYTHON, "") and _prints(code) is True:
                return code.strip("\n")
            if last is None and mark in _PYTHON:
                last = code.strip("\n")
        return last
    lines = response.splitlines()[:_MOST_LINES]
    start = next((i for i, line in enumerate(lines) if _OPENING.match(line)), None)
    if start is None:
        return None
    lines = lines[start:]
    while lines:
        code = "\n".join(lines)
        fault = _prints(code)
        if isinstance(fault, bool):
            return code if fault else None
        del lines[min(fault, len(lines)) - 1 :]  # no shorter run that has this line is Python either
    return None


def fenced_blocks(response: str) -> list[tuple[str, str]]:
    """The mark, in lower case, and the text of each block between lines of three backticks."""
    blocks: list[tuple[str, list[str]]] = []
    inside = False
    lines = response.split("\n")
    for n, line in enumerate(lines):
        beginning = line.lstrip(" \t")
        if not beginning.startswith("```"):
            if inside:
                blocks[-1][1].append(line)
        elif inside:
            blocks[-1][1].append("")  # the block ends with a line
            inside = False
        elif n + 1 < len(lines):
            mark = _WORD.match(beginning[3:].lstrip(" \t"))
            blocks.append((mark[0].lower() if mark else "", []))
            inside = True
    return [(mark, textwrap.dedent("\n".join(code))) for mark, code in blocks]


def _prints(code: str) -> bool | int:
    """Whether this calls `print`; for what is no Python the line that is at fault, counted from 1."""
    lines = code.count("\n") + 1
    if "print" not in code:
        return False
    if len(code) > _MOST_CHARACTERS:
        return lines
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for "\d" in a program's strings
            calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    except SyntaxError as error:
        return min(error.lineno or lines, lines)
    except (ValueError, MemoryError, RecursionError):
        return lines
    return any(isinstance(called, ast.Name) and called.id == "print" for called in calls)
