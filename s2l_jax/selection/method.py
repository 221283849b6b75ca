"""What a selection method is: a function with a name, what it needs, and its arguments as options."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from s2l_jax.config.fields import When, when
from s2l_jax.config.options import Option, options_of
from s2l_jax.errors import InputError
from s2l_jax.features.feature import FEATURES, Feature
from s2l_jax.registry import Registry
from s2l_jax.selection.known import Known
from s2l_jax.selection.ranking import Ranking

StratifyBy = Literal["source", "none"]


def _accept(known: Known, **options: Any) -> None:
    """Of a method that works with anything."""


@dataclasses.dataclass(eq=False)
class Method:
    """A selection method; calling it calls its function.

    Attributes:
      name: what users call it.
      rank: (inputs, count, seed, **options) -> Ranking, with inputs checked and count <= N.
      needs: the features (names in `FEATURES`) it cannot do without.
      takes_all: whether it takes every row that it ranks, whatever the budget.
      needs_for: by values of its option `features`, what it needs in place of `needs`.
      check: (known, **options) raises InputError for what it cannot work well with, as far as that is known
        before anything is measured. A run of the pipeline refuses that, `select` warns of it.
      preferences: values of its features' options that it was published with.
    """

    name: str
    rank: Callable[..., Ranking]
    needs: frozenset[str]
    takes_all: bool = False
    needs_for: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    check: Callable[..., None] = _accept
    preferences: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, *args: Any, **options: Any) -> Ranking:
        """Rank the examples."""
        return self.rank(*args, **options)

    @property
    def may_leave_out(self) -> bool:
        """Whether a filter for all runs is for it too: not if it takes all rows, or goes by all together."""
        return not self.takes_all and all(feature.splits for feature in self.features.values())

    def by_features(self, features: str) -> "Method":
        """The same with a value of its option `features`, if it has one: it then needs what that one does."""
        needs = self.needs_for.get(features, self.needs)
        return dataclasses.replace(self, needs=needs, needs_for={}) if self.needs_for else self

    def after_filter(self, drop_unlearnt: float, drop_rising: bool) -> "Method":
        """The same where rows are left out by their losses: it then needs trajectories.

        Raises:
          InputError: no such share, or the method needs what is of all rows together.
        """
        if not 0 <= drop_unlearnt < 1:
            raise InputError(f"drop_unlearnt={drop_unlearnt!r} must be at least 0 and below 1")
        if not (drop_unlearnt or drop_rising):
            return self
        if whole := [name for name, feature in self.features.items() if not feature.splits]:
            asked = f"drop_unlearnt={drop_unlearnt}" if drop_unlearnt else "drop_rising=True"
            raise InputError(
                f"{asked}: method {self.name!r} needs {', '.join(whole)}, of all rows together, and "
                "cannot leave rows out"
            )
        return dataclasses.replace(self, needs=self.needs | {"trajectories"})

    @functools.cached_property
    def own_options(self) -> dict[str, Option]:
        """The options of the function."""
        return options_of(self.rank)

    @functools.cached_property
    def feature_options(self) -> dict[str, Option]:
        """The options of the features it needs, which say what a run of the pipeline gives it.

        Those that it needs for some values of its option `features` alone have that as a condition.
        """
        found: dict[str, tuple[tuple[When, ...], Option]]
        found = {name: ((), option) for name, option in _options_of(self.needs).items()}
        for features, needs in self.needs_for.items():
            condition = (when("features", features),)
            found = {name: (condition, option) for name, option in _options_of(needs).items()} | found
        return {
            name: dataclasses.replace(option, default=self.preferences.get(name, option.default), when=given)
            for name, (given, option) in found.items()
        }

    @property
    def features(self) -> dict[str, Feature]:
        """What it needs, by name, in order."""
        return {name: FEATURES.find(name) for name in sorted(self.needs)}

    @property
    def options(self) -> dict[str, Any]:
        """Its own options with their defaults."""
        return {name: option.default for name, option in self.own_options.items()}


def _options_of(needs: Iterable[str]) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for name in sorted(needs):
        options = FEATURES.find(name).options
        found |= options_of(options) if options else {}
    return found


METHODS: Registry[Method] = Registry(
    "selection method", Method, ["s2l_jax.selection.s2l", "s2l_jax.selection.baselines"]
)


def method(
    name: str,
    *,
    needs: Iterable[str] = (),
    takes_all: bool = False,
    needs_for: Mapping[str, Iterable[str]] | None = None,
    check: Callable[..., None] = _accept,
    **preferences: Any,
) -> Callable[[Callable[..., Ranking]], Method]:
    """Make a function a selection method: `@method("longest", needs=["response_tokens"])`.

    Its arguments are (inputs, count, seed) and after them its options, each with a default, an annotation and
    a line under "Options:" in the docstring; see `config.options.options_of`. It is known by its name once
    its module is imported, and from anywhere as "module:function". For what is given here see `Method`.
    """

    def enter(rank: Callable[..., Ranking]) -> Method:
        by_value = {value: frozenset(names) for value, names in (needs_for or {}).items()}
        made = Method(name, rank, frozenset(needs), takes_all, by_value, check, preferences)
        functools.update_wrapper(made, rank, updated=())
        _ = made.own_options  # a fault in them is met where it was made
        METHODS.enter(name, made)
        return made

    return enter
