"""Options of a method or feature, read from its signature: name, type, default, bounds and meaning."""

import dataclasses
import inspect
import numbers
import operator
import re
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import annotated_types
import numpy as np

from s2l_jax.config.fields import KINDS, Field, When
from s2l_jax.errors import InputError

_TYPES: dict[type, Any] = {bool: bool | np.bool_, int: numbers.Integral, float: numbers.Real, str: str}
_HEADINGS = ("Options:", "Attributes:")
_BOUNDS: dict[type, tuple[Callable[[Any, Any], bool], str]] = {  # what is tested, and in words
    annotated_types.Ge: (operator.ge, "at least"),
    annotated_types.Gt: (operator.gt, "above"),
    annotated_types.Le: (operator.le, "at most"),
    annotated_types.Lt: (operator.lt, "below"),
}


@dataclasses.dataclass(frozen=True)
class Inherits:
    """In an annotation: a run that does not say otherwise takes the option from this field of the config."""

    field: str


@dataclasses.dataclass(frozen=True)
class OneOf:
    """In an annotation of a text: the names it may be, where a registry has them."""

    names: Iterable[str]


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: what it may be, and what it is where nobody says."""

    name: str
    kind: type
    default: Any
    doc: str
    choices: tuple[str, ...] = ()
    bounds: tuple[annotated_types.BaseMetadata, ...] = ()
    inherits: str = ""  # the field of the config that a run takes it from
    when: tuple[When, ...] = ()  # conditions on other options without which it is not looked at

    def check(self, value: Any, whose: str) -> None:
        """Raise an InputError that begins with `whose` for a value of another kind, or out of bounds."""
        # True and False are whole numbers to Python.
        fits = isinstance(value, _TYPES[self.kind]) and (self.kind is bool or not isinstance(value, bool))
        if not fits:
            raise InputError(f"{whose}: {self.name} must be {KINDS[self.kind]}, got {value!r}")
        if not self.allows(value):
            raise InputError(f"{whose}: {self.name} must be {self.allowed}, got {value!r}")

    def allows(self, value: Any) -> bool:
        """Whether a value of the right kind is within bounds."""
        if self.choices:
            return value in self.choices
        return all(_BOUNDS[type(bound)][0](value, _limit(bound)) for bound in self.bounds)

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = [f"{_BOUNDS[type(bound)][1]} {_limit(bound)}" for bound in self.bounds]
        return " and ".join(words)

    @property
    def unset(self) -> Any:
        """What stands for "as the config has it", for an option that is inherited."""
        if self.kind is str:
            return "inherit"
        return min(_limit(bound) for bound in self.bounds) - 1

    def field(self) -> Field:
        """The option as a field of a selection run."""
        if not self.inherits:
            return Field(self.default, self.doc, self.allows, self.allowed, self.choices, when=self.when)
        unset = self.unset
        return Field(
            unset,
            f"{self.doc}; {unset}: {self.inherits}",
            lambda value: value == unset or self.allows(value),
            f"{self.allowed}, or {unset}",
            (unset, *self.choices) if self.choices else (),
            when=self.when,
        )


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """The options that a function, or a dataclass, has: its arguments with defaults.

    An annotation is bool, int, float, str or a `Literal` of texts; in `Annotated` it may have bounds of
    `annotated_types`, a `OneOf` and an `Inherits`. What each means is in the docstring, under "Options:"
    (of a dataclass under "Attributes:"), as "name: meaning".

    Raises:
      InputError: an option without an annotation of these, or without a meaning.
    """
    hints = typing.get_type_hints(
        function.__init__ if inspect.isclass(function) else function, include_extras=True
    )
    meanings = _meanings(inspect.getdoc(function) or "")
    options = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty:
            continue
        if name not in hints or name not in meanings:
            what = "type" if name not in hints else "meaning in the docstring"
            where = f"{function.__module__}.{function.__qualname__}"
            raise InputError(f"{where}: option {name!r} has no {what}; see s2l_jax.config.options.")
        options[name] = _option(name, parameter.default, hints[name], meanings[name])
    return options


def _option(name: str, default: Any, hint: Any, doc: str) -> Option:
    extras: tuple[Any, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *rest = typing.get_args(hint)
        extras = tuple(rest)
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    choices += tuple(name for extra in extras if isinstance(extra, OneOf) for name in extra.names)
    kind = str if choices else hint
    if kind not in KINDS:
        raise InputError(f"option {name!r}: {hint!r} is not bool, int, float, str or a Literal of texts.")
    inherits = next((extra.field for extra in extras if isinstance(extra, Inherits)), "")
    bounds = tuple(extra for extra in extras if isinstance(extra, annotated_types.BaseMetadata))
    return Option(name, kind, default, doc, choices, bounds, inherits)


def _meanings(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name, inside = "", False
    for line in docstring.splitlines():
        if not inside:
            inside = line.strip() in _HEADINGS
        elif not line.startswith(" "):
            break
        elif match := re.match(r" {1,4}(\w+): (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif name:
            found[name] += f" {line.strip()}"
    return {name: text.rstrip(".") for name, text in found.items()}


def _limit(bound: annotated_types.BaseMetadata) -> Any:
    return getattr(bound, type(bound).__name__.lower())
