"""What a field of a config is: a default, a meaning, a check, and what it decides; the kinds; old names."""

import ast
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from s2l_jax.errors import nearest

Value = bool | int | float | str | tuple
KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


@dataclasses.dataclass(frozen=True)
class When:
    """A condition on another field, named from the group that the field is in.

    It holds where the other one is (or with `negated`, is not) one of `values`; a list, where it has one.
    """

    name: str
    values: tuple[Value, ...]
    negated: bool = False

    def holds(self, group: Mapping[str, Any]) -> bool:
        """Whether it does, in a group of values."""
        value: Any = group
        for part in self.name.split("."):
            value = value[part]
        found = any(v in self.values for v in value) if isinstance(value, tuple) else value in self.values
        return found != self.negated

    def __str__(self) -> str:
        values = " or ".join(map(repr, self.values))
        return f"unless {self.name}={values}" if self.negated else f"with {self.name}={values}"


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
      default: fixes its type; a tuple is a list, written with commas between on the command line.
      doc: what it means, in words that can be read alone.
      check: whether a value may be had; `allowed` says which may, in words.
      choices: the values it is one of, or the words that a list is made of.
      unit: of a number.
      items: the type of what is in a list.
      decides: whether results depend on it. One that does not says only how, or how fast, they are made,
        and may change from one sitting to the next.
      adds: it names things that are made beside what is there; what is there stays.
      by_content: a path, or what stands for rows: results depend on what it leads to, which the part
        that reads it tells (see `fingerprint`), and not on how it is written.
      when: conditions without all of which it is not looked at, and so decides nothing.
    """

    default: Value
    doc: str
    check: Callable[[Any], bool] = lambda value: True
    allowed: str = ""
    choices: tuple[Value, ...] = ()
    unit: str = ""
    items: type = str
    decides: bool = True
    adds: bool = False
    by_content: bool = False
    when: tuple[When, ...] = ()

    @property
    def types(self) -> set[type]:
        """Those that its values have: that of the default, and where it is one of some values theirs."""
        return {type(self.default)} | (
            set() if isinstance(self.default, tuple) else {type(each) for each in self.choices}
        )

    @property
    def kind(self) -> str:
        """Its type in words."""
        if isinstance(self.default, tuple):
            return {int: "whole numbers", str: "texts"}[self.items] + " with commas between"
        if len(self.types) > 1:
            return self.allowed
        return KINDS[type(self.default)]

    def is_active(self, group: Mapping[str, Any]) -> bool:
        """Whether it is looked at, by the values of its group."""
        return all(condition.holds(group) for condition in self.when)

    def parse_list(self, text: str) -> tuple:
        """The list that a command line has: `a,b`, or as Python writes one: "('a, b', 'c')".

        Raises:
          ValueError: whole numbers are needed, or it is no such literal.
        """
        text = text.strip()
        if text.startswith(("(", "[", "'", '"')):
            try:
                found = ast.literal_eval(text)
            except SyntaxError as error:
                raise ValueError(f"{text} is not a Python literal") from error
            return tuple(found) if isinstance(found, tuple | list) else (found,)
        return tuple(self.items(part.strip()) for part in text.split(",")) if text else ()


def when(name: str, *values: Value) -> When:
    """Another field is one of some values."""
    return When(name, values)


def unless(name: str, *values: Value) -> When:
    """Another field is none of some values."""
    return When(name, values, negated=True)


def positive(default: Value, doc: str, **more: Any) -> Field:
    return Field(default, doc, lambda v: v > 0, "above 0", **more)


def natural(default: Value, doc: str, **more: Any) -> Field:
    return Field(default, doc, lambda v: v >= 0, "0 or above", **more)


def fraction(default: float, doc: str, **more: Any) -> Field:
    return Field(default, doc, lambda v: 0 <= v < 1, "at least 0 and below 1", **more)


def share(default: float, doc: str, **more: Any) -> Field:
    return Field(default, doc, lambda v: 0 < v <= 1, "above 0 and at most 1", **more)


def choice(default: Value, choices: tuple[Value, ...], doc: str, **more: Any) -> Field:
    return Field(
        default, doc, lambda v: v in choices, f"one of {', '.join(map(str, choices))}", choices, **more
    )


def seeds(doc: str, **more: Any) -> Field:
    """Different seeds, or none."""
    different = lambda v: all(s >= 0 for s in v) and len(set(v)) == len(v)  # noqa: E731
    return Field((), doc, different, "different whole numbers from 0 up", items=int, **more)


def axis(default: int, doc: str, **more: Any) -> Field:
    """The size of a mesh axis."""
    return Field(default, doc, lambda v: v > 0 or v == -1, "above 0, or -1 for what remains", **more)


class Group(dict[str, Any]):
    """Fields and further groups by name, and what they are about."""

    def __init__(self, doc: str, /, **fields: Any):
        super().__init__(fields)
        self.doc = doc


# Names that fields had, for who comes back with an old config.
_RENAMED = {
    "within": "prefix_of",
    "first": "num_checkpoints",
    "cluster_whole": "cluster_small_sources",
    "match": "match_by",
    "keep": "save_params",
}


def unknown(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a name, or a dotted one, that no field has; `.` where none is near."""
    known = list(known)
    group, _, last = name.rpartition(".")
    renamed = ".".join(filter(None, (group, _RENAMED.get(last, last))))
    if renamed != name and renamed in known:
        return f"; did you mean {renamed!r}?"
    same = [each for each in known if "." in each and each.rpartition(".")[2] == last]
    return f"; did you mean {same[0]!r}?" if len(same) == 1 else nearest(name, known)
