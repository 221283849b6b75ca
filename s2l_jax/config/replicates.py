"""What the entries of selection.runs stand for: a subset for each of several budgets and seeds."""

import re
from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.runs import BUDGETS, default_budget, find_method
from s2l_jax.errors import InputError

_BUDGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>%|t?)")
_OF_A_SUBSET = re.compile(r"(-\d+(_\d+)?(pct|t)?)?(-seed\d+)?$")  # what `subsets` adds to a name


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
        for subset, fields in subsets(config, name).items():
            if subset in expanded.selection.runs:
                raise InputError(
                    f"selection.runs.{name}: {subset!r} is the name of two subsets; rename the run."
                )
            expanded.selection.runs[subset] = ConfigDict(entry.to_dict() | fields)
    for name, entry in expanded.selection.runs.items():
        if entry.prefix_of and entry.prefix_of not in expanded.selection.runs:
            raise InputError(
                f"selection.runs.{name}.prefix_of={entry.prefix_of!r}: there is no such subset, as seeds or "
                "budgets of the two differ: give both the same, or neither."
            )
    if config.analysis.theory:
        expanded.analysis.run = next(iter(subsets(config, _analysed(config))))
    return expanded


def _analysed(config: ConfigDict) -> str:
    """The entry of selection.runs whose clusters are to be judged."""
    runs = config.selection.runs
    named = config.analysis.run or next((name for name, each in runs.items() if each.method == "s2l"), "")
    if not named:
        raise InputError(
            "analysis.theory=True: there is no selection run of method s2l; name one with analysis.run."
        )
    return named


def subsets(config: ConfigDict, name: str) -> dict[str, dict[str, Any]]:
    """The subsets that an entry of selection.runs stands for: by name the fields that each has of its own."""
    entry, none = config.selection.runs[name], dict.fromkeys(BUDGETS, 0) | {"budget_fraction": 0.0}
    has_own = any(entry[field] for field in BUDGETS) or find_method(entry.method).takes_all
    budgets = {_label(budget): none | budget for budget in ([] if has_own else budgets_of(config))}
    found = {}
    for label, budget in (budgets or {"": {}}).items():
        is_default = not budget or budget == none | default_budget(config)
        for seed in entry.seeds or config.seeds or (config.seed,):
            suffix = "" if seed == config.seed else f"-seed{seed}"
            outer = {"prefix_of": f"{entry.prefix_of}{suffix}"} if entry.prefix_of else {}
            own_name = f"{name}{'' if is_default else f'-{label}'}{suffix}"
            found[own_name] = budget | outer | {"seeds": (seed,)}
    return found


def entry_of(name: str) -> str:
    """The entry of selection.runs that a subset is of, by the subset's name (`subsets`)."""
    return _OF_A_SUBSET.sub("", name)


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


def budgets_of(config: ConfigDict) -> list[dict[str, Any]]:
    """selection.budgets as fields of runs.

    Raises:
      InputError: one cannot be read, or is there twice.
    """
    budgets = [parse_budget(text) for text in config.selection.budgets]
    for i, budget in enumerate(budgets):
        if _label(budget) in map(_label, budgets[:i]):  # or so near to another that names cannot tell them
            raise InputError(f"selection.budgets: {config.selection.budgets[i]!r} is there twice.")
    return budgets


def _label(budget: dict[str, Any]) -> str:
    ((field, amount),) = budget.items()
    if field == "budget_fraction":
        return f"{100 * amount:g}pct".replace(".", "_")
    return f"{amount}t" if field == "budget_tokens" else str(amount)
