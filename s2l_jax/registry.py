"""Things that are found by name, each entered by the file that has it; a user's own module may have more."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from s2l_jax.errors import InputError

_Value = TypeVar("_Value")


class Registry(Mapping[str, _Value]):
    """The things of one kind, by name.

    A file of `places` enters what it has when it is imported, and all of them are imported when the first
    name is asked for: to add one is to write a file. A name with a colon, "my_package.my_module:thing", is
    imported from there instead.

    Args:
      kind: what the things are called in errors, such as "selection method".
      value_type: their class; what a user's own module has must be of it.
      places: modules, and packages all of whose modules are looked into.
    """

    def __init__(self, kind: str, value_type: type[_Value], places: Iterable[str]):
        self._kind, self._type, self._places = kind, value_type, tuple(places)
        self._entries: dict[str, _Value] = {}
        self._complete = False

    def enter(self, name: str, value: _Value) -> None:
        """Make a thing known by a name.

        Raises:
          ValueError: another thing has the name.
        """
        if name in self._entries:
            raise ValueError(f"two {self._kind}s are called {name!r}")
        self._entries[name] = value

    def find(self, name: str) -> _Value:
        """The thing of a name.

        Raises:
          InputError: there is none; names the nearest.
        """
        if ":" in name:
            return self._imported(name)
        if name not in self:
            hint = nearest(name, self).removesuffix(".")
            raise InputError(f"unknown {self._kind}: {name!r}{hint}; there are: {', '.join(self)}")
        return self[name]

    def __getitem__(self, name: str) -> _Value:
        self._import_all()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._import_all()
        return iter(self._entries)

    def __len__(self) -> int:
        self._import_all()
        return len(self._entries)

    def _import_all(self) -> None:
        if self._complete:
            return
        self._complete = True  # first: the modules themselves may look something up
        for place in self._places:
            path = getattr(importlib.import_module(place), "__path__", ())
            for module in sorted(each.name for each in pkgutil.iter_modules(path)):
                importlib.import_module(f"{place}.{module}")

    def _imported(self, name: str) -> _Value:
        module, _, attribute = name.partition(":")
        try:
            value = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"{self._kind} {name!r} cannot be imported ({error}): write it as module:name, with a module "
                "that Python finds (through PYTHONPATH, or in the folder of the command)."
            ) from error
        if not isinstance(value, self._type):
            raise InputError(f"{name!r} is no {self._kind}, it is a {type(value).__name__}.")
        return value


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a name that is not known, or `.` where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
