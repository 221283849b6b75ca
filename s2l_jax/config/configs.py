"""Configs: with every field at its default, and from a file of configs/."""

import pathlib
import runpy
from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.fields import Group
from s2l_jax.config.schema import SCHEMA
from s2l_jax.errors import InputError


def default() -> ConfigDict:
    """A config with every field at its default and no selection runs; configs/*.py change it."""
    config = ConfigDict(_defaults(SCHEMA))
    config.selection.runs = ConfigDict()
    return config


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


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    return {k: _defaults(f) if isinstance(f, Group) else f.default for k, f in schema.items()}
