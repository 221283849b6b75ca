"""What the entries of selection.runs stand for: a subset for each of several budgets and seeds."""

import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.runs import BUDGETS, find_method
from s2l_jax.errors import InputError

_BUDGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>%|t?)")


def seeds_of(config: ConfigDict, entry: ConfigDict | None = None) -> tuple[int, ...]:
    """The seeds of an entry's replicates, or without one those of entries that say none."""
    own = () if entry is None else tuple(entry.seeds)
    return own or tuple(config.seeds) or (config.seed,)


def of_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """The config of a replicate: a copy with another `seed`."""
    other = ConfigDict(config.to_dict())
    other.seed = seed
    return other


def expand(config: ConfigDict) -> ConfigDict:
    """A copy in which every entry of selection.runs is one subset, with its own budget and one seed.

    An entry without a budget of its own becomes one for each of selection.budgets, and each of these one for
    each seed. The one of selection's budget and of `seed` keeps its name, so that budgets and seeds can be
    added to a finished workdir; others are called NAME-600, NAME-5pct or NAME-20000t, and NAME-seed1.

    Raises:
      InputError: a budget that cannot be read, a seed or budget twice, or two subsets of one name.
    """
    expanded = ConfigDict(config.to_dict())
    expanded.selection.runs = ConfigDict()
    for name, entry in config.selection.runs.items():
        for subset, fields in _subsets(config, name, entry):
            if subset in expanded.selection.runs:
                raise InputError(
                    f"selection.runs.{name}: {subset!r} is the name of two subsets; rename the run."
                )
            expanded.selection.runs[subset] = ConfigDict(entry.to_dict() | fields)
    return expanded


def parse_budget(text: str) -> dict[str, Any]:
    """The fields of a run that a budget such as "600", "5%" or "20000t" stands for.

    Raises:
      InputError: it cannot be read, or is no budget.
    """
    found = _BUDGET.fullmatch(text.strip())
    if found is not None:
        number, unit = float(found["number"]), found["unit"]
        if unit == "%" and 0 < number < 100:
            return {"budget_fraction": number / 100}
        if unit != "%" and number >= 1 and number == int(number):
            return {"budget_tokens" if unit else "budget": int(number)}
    raise InputError(
        f"selection.budgets: {text!r} is no budget; write rows as 600, a share of the pool as 5%, tokens as "
        "20000t."
    )


def _subsets(config: ConfigDict, name: str, entry: ConfigDict) -> Iterator[tuple[str, dict[str, Any]]]:
    none: dict[str, Any] = dict.fromkeys(BUDGETS, 0) | {"budget_fraction": 0.0}
    default = none | {field: config.selection[field] for field in BUDGETS}
    if default["budget_fraction"] or default["budget_tokens"]:
        default["budget"] = 0
    own = any(entry[field] for field in BUDGETS)
    budgets = (
        [{}] if own or find_method(entry.method).takes_all else [none | b for b in budgets_of(config)] or [{}]
    )
    for budget in budgets:
        of_budget = name if not budget or budget == default else f"{name}-{_label(budget)}"
        for seed in seeds_of(config, entry):
            suffix = "" if seed == config.seed else f"-seed{seed}"
            outer = {"prefix_of": f"{entry.prefix_of}{suffix}"} if entry.prefix_of else {}
            yield f"{of_budget}{suffix}", budget | outer | {"seeds": (seed,)}


def budgets_of(config: ConfigDict) -> list[dict[str, Any]]:
    """selection.budgets as fields of runs.

    Raises:
      InputError: one cannot be read, or is there twice.
    """
    budgets = [parse_budget(text) for text in config.selection.budgets]
    for i, budget in enumerate(budgets):
        if budget in budgets[:i]:
            raise InputError(f"selection.budgets: {config.selection.budgets[i]!r} is there twice.")
    return budgets


def _label(budget: dict[str, Any]) -> str:
    if share := budget["budget_fraction"]:
        return f"{100 * share:g}pct".replace(".", "_")
    return f"{budget['budget_tokens']}t" if budget["budget_tokens"] else str(budget["budget"])
