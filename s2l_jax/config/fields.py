"""What a field of a config is: a default, a meaning and a check; and the kinds of field there are."""

import dataclasses
from collections.abc import Callable
from typing import Any

Value = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: its default (which fixes its type), what it means, and what it may be."""

    default: Value
    doc: str
    check: Callable[[Any], bool] = lambda value: True
    allowed: str = ""  # what `check` asks for, in words
    choices: tuple[str, ...] = ()


def positive(default: Value, doc: str) -> Field:
    """A number above 0."""
    return Field(default, doc, lambda v: v > 0, "above 0")


def natural(default: Value, doc: str) -> Field:
    """A number of at least 0."""
    return Field(default, doc, lambda v: v >= 0, "0 or above")


def fraction(default: float, doc: str) -> Field:
    """A number of at least 0 and below 1."""
    return Field(default, doc, lambda v: 0 <= v < 1, "at least 0 and below 1")


def choice(default: str, choices: tuple[str, ...], doc: str) -> Field:
    """One of a few words."""
    return Field(default, doc, lambda v: v in choices, f"one of {', '.join(choices)}", choices)


def axis(default: int, doc: str) -> Field:
    """The size of a mesh axis."""
    return Field(default, doc, lambda v: v > 0 or v == -1, "above 0, or -1 for what remains")
