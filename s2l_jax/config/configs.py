"""Configs: with every field at its default, from a file of configs/, and a run with what it inherits."""

import pathlib
import runpy
from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.fields import Group, Value
from s2l_jax.config.schema import SCHEMA
from s2l_jax.config.selection import BUDGETS, RUN_SCHEMA
from s2l_jax.config.validate import unknown
from s2l_jax.errors import InputError


def default() -> ConfigDict:
    """A config with every field at its default and no selection runs; configs/*.py change it."""
    config = ConfigDict(_defaults(SCHEMA))
    config.selection.runs = ConfigDict()
    return config


def run(**fields: Value) -> ConfigDict:
    """One entry of `selection.runs`, as in `config.selection.runs.s2l = run(method="s2l")`.

    Raises:
      InputError: an unknown field.
    """
    entry = ConfigDict(_defaults(RUN_SCHEMA))
    for name, value in fields.items():
        if name not in RUN_SCHEMA:
            raise InputError(f"selection run: no field {name!r}{unknown(name, RUN_SCHEMA)}")
        entry[name] = value
    return entry


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


def resolved_run(config: ConfigDict, name: str) -> dict[str, Value]:
    """One selection run with what it inherits filled in."""
    entry = dict(config.selection.runs[name])
    if not any(entry[name] for name in BUDGETS):
        entry.update({name: config.selection[name] for name in BUDGETS})
    # Of the ways to say a budget, the one that is set beside `budget`, or `budget`.
    if entry["budget_fraction"] or entry["budget_tokens"]:
        entry["budget"] = 0
    entry["seed"] = config.seed if entry["seed"] < 0 else entry["seed"]
    entry["num_clusters"] = entry["num_clusters"] or config.clustering.num_clusters
    if entry["stratify_by"] == "inherit":
        # Only a run that asks for it by name draws its random subset source by source.
        entry["stratify_by"] = "none" if entry["method"] == "random" else config.selection.stratify_by
    return entry


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    return {k: _defaults(f) if isinstance(f, Group) else f.default for k, f in schema.items()}
