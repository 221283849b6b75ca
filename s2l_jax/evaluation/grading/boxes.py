r"""Answers in `\boxed{}`: one, or several that together are one."""

import re
from collections.abc import Iterator

_BOXES = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_MOST_BOXES = 50  # that are looked at, from the last: thousands that are not closed would take quadratic time
# What is between boxes of one answer: $x = \boxed{2}$ or $x = \boxed{3}$.
_BETWEEN = re.compile(
    r"(?:[\s$,;&~]|\\[()\[\],;:!]|\\\\|\\q?quad(?![A-Za-z])|\b(?:and|or)\b|\\text\s*\{[\s,]*(?:and|or)[\s,]*\}"
    r"|(?:\b[A-Za-z](?:_\{?\w\}?)?|\([a-z],\s?[a-z]\))\s*=)*"
)

_ACCEPTED = re.compile(
    r"\b(?:either|any|both|each|also)\b[^.$]{0,60}\b(?:accept(?:ed|able)?|correct|right)\b", re.IGNORECASE
)


def last_box(response: str) -> str | None:
    """What is in the last box; in the last ones, with commas between, where one answer is in several.

    None where no box is closed.
    """
    boxes: list[str] = []
    start: int | None = None
    for begin, end, content in _from_last(response):
        gap = None if start is None else response[end:start]
        if gap is not None and (len(gap) > 100 or not gap.strip() or not _BETWEEN.fullmatch(gap)):
            break
        if content not in boxes:
            boxes.insert(0, content)
        start = begin
    return ", ".join(boxes) if boxes else None


def all_boxes(response: str) -> list[str]:
    """What is in each box, in their order, once."""
    return list(dict.fromkeys(content for _, _, content in _from_last(response)))[::-1]


def alternative_boxes(reference: str) -> list[str]:
    """The boxes of a reference that says that each of its last ones is an answer; or else none."""
    boxes = all_boxes(reference)
    return boxes if len(boxes) > 1 and _ACCEPTED.search(reference) else []


def _from_last(response: str) -> Iterator[tuple[int, int, str]]:
    """Closed boxes from the last: where each begins and ends, and what is in it."""
    for match in list(_BOXES.finditer(response))[: -_MOST_BOXES - 1 : -1]:
        rest = response[match.end() :]
        if not rest.startswith("{"):
            if word := re.match(r"[^\s$.,]+", rest):
                yield match.start(), match.end() + word.end(), word.group()
            continue
        depth = 0
        for place, character in enumerate(rest):
            if character in "{}" and rest[place - 1 : place] != "\\":
                depth += 1 if character == "{" else -1
            if depth == 0:
                yield match.start(), match.end() + place + 1, rest[1:place].strip()
                break
