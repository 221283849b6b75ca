"""Configs, from defaults and from files, and the entries of `selection.runs`, whose methods have options."""

import pathlib
import runpy
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict, FieldReference

from s2l_jax.config.fields import Field, Group, Value, fraction, natural, seeds, unknown
from s2l_jax.config.inputs import GROUPS
from s2l_jax.config.schema import SCHEMA, walk
from s2l_jax.errors import InputError

if TYPE_CHECKING:
    from s2l_jax.config.options import Option
    from s2l_jax.selection.method import Method

UNTUNED = "untuned"  # the name, beside those of runs, of the target as it came
BUDGETS = ("budget", "budget_fraction", "budget_tokens")

COMMON: dict[str, Field] = {
    "method": Field(
        "s2l", "name of a selection method (docs/guide/selection.md), or module:function for one of your own"
    ),
    "budget": natural(0, "examples to select; 0: selection.budget"),
    "budget_fraction": fraction(0.0, "share of the pool's rows to select, in place of `budget`"),
    "budget_tokens": natural(0, "tokens of prompt and response to select, in place of `budget`"),
    "prefix_of": Field(
        "", "another run, of the same method and settings and a larger budget, whose first rows are taken"
    ),
    "drop_unlearnt": Field(
        -1.0,
        "share of each source's rows left out beforehand, those whose late losses are highest for their "
        "source; -1: selection.drop_unlearnt, and for methods of all rows together 0",
        lambda v: v == -1 or 0 <= v < 1,
        "at least 0 and below 1, or -1",
    ),
    "proxy": Field("", "proxy of `proxies` whose losses the method goes by; empty: the config's own"),
    "drop_rising": Field(
        False, "leave out beforehand the rows whose loss does not fall from the first checkpoint to the last"
    ),
    "seeds": seeds("seeds of this run's replicates, such as 0,1,2; empty: seeds", decides=False, adds=True),
    "train_target": Field(True, "train and evaluate a target on this subset", decides=False, adds=True),
}


def default() -> ConfigDict:
    """A config with every field at its default, without selection runs and other proxies."""
    config = ConfigDict(_defaults(SCHEMA))
    config.selection.runs = ConfigDict()
    config.proxies = ConfigDict()
    return config


def _defaults(group: Group) -> dict[str, Any]:
    return {name: _defaults(f) if isinstance(f, Group) else _default(f) for name, f in group.items()}


def _default(field: Field) -> Any:
    """The default, in a reference where values of another type may take its place."""
    return field.default if len(field.types) == 1 else FieldReference(field.default, field_type=object)


def load(name: str) -> ConfigDict:
    """The config of a file beside this package: configs/<name>.py.

    Raises:
      InputError: no such file; lists those there are.
    """
    folder = pathlib.Path(__file__).parents[2] / "configs"
    if not (folder / f"{name}.py").exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.py")))
        raise InputError(f"no config {name!r} in {folder}; there are: {known}.")
    return runpy.run_path(str(folder / f"{name}.py"))["get_config"]()


def run(**fields: Value) -> ConfigDict:
    """One entry of `selection.runs`, as in `config.selection.runs.s2l = run(method="s2l")`.

    It has the fields of every run and the options of its method, at their defaults where not given.

    Raises:
      InputError: an unknown method or field.
    """
    schema = run_schema(str(fields.get("method", COMMON["method"].default)))
    entry = ConfigDict({name: field.default for name, field in schema.items()})
    for name, value in fields.items():
        if name not in schema:
            raise InputError(f"selection run: no field {name!r}{unknown(name, schema)}")
        entry[name] = value
    return entry


def run_schema(method: str) -> dict[str, Field]:
    """The fields of a run of a method.

    Raises:
      InputError: no such method.
    """
    return COMMON | {name: option.field() for name, option in options(find_method(method)).items()}


def options(method: "Method") -> "dict[str, Option]":
    """What a run of a method may set: its own options and those of the features it needs."""
    return method.own_options | method.feature_options


def find_method(name: str) -> "Method":
    """The method of a name."""
    from s2l_jax.selection.method import METHODS

    return METHODS.find(name)


def method_of(entry: dict[str, Any]) -> "Method":
    """The method of a run (`resolved_run`), with what the run makes it need."""
    found = find_method(entry["method"]).by_features(entry.get("features", ""))
    return found.after_filter(entry["drop_unlearnt"], entry["drop_rising"])


def run_fields() -> dict[str, Field]:
    """The fields that selection runs have with some method that has been imported."""
    from s2l_jax.selection.method import METHODS

    return {name: field for method in METHODS for name, field in run_schema(method).items()}


def find_field(path: str) -> Field | None:
    """The field of a dotted name, those of selection runs and other proxies among them; None for none."""
    parts = path.split(".")
    if parts[:2] == ["selection", "runs"]:
        return run_fields().get(parts[3]) if len(parts) == 4 else None
    if parts[0] == "proxies":
        return dict(walk()).get(".".join(parts[2:])) if parts[2:3] and parts[2] in GROUPS else None
    return dict(walk()).get(path)


def default_budget(config: ConfigDict) -> dict[str, Any]:
    """The budget of runs that have none: of the ways to say it the one set beside `budget`, or `budget`."""
    found = {budget: config.selection[budget] for budget in BUDGETS}
    return found | ({"budget": 0} if found["budget_fraction"] or found["budget_tokens"] else {})


def resolved_run(config: ConfigDict, name: str) -> dict[str, Any]:
    """One selection run, fields and options of its method, with what it inherits filled in.

    Its `seed` is its only one, or the first of several (see `replicates.expand`).
    """
    given = config.selection.runs[name]
    schema = run_schema(given.method)
    entry = {field: given.get(field, schema[field].default) for field in schema}
    if not any(entry[budget] for budget in BUDGETS):
        entry.update(default_budget(config))
    if entry["drop_unlearnt"] < 0:
        inherits = find_method(given.method).may_leave_out
        entry["drop_unlearnt"] = config.selection.drop_unlearnt if inherits else 0.0
    entry["seed"] = (*entry["seeds"], *config.seeds, config.seed)[0]
    for option in options(find_method(given.method)).values():
        if option.inherits and entry[option.name] == option.unset:
            group, _, field = option.inherits.partition(".")
            entry[option.name] = config[group][field]
    return entry
