"""Every field of a run, its checks, and configs as files."""

from s2l_jax.config.runs import resolved_run, run
from s2l_jax.config.schema import (
    SCHEMA,
    default,
    describe,
    load,
    meaning,
    nearest_field,
    validate,
)

__all__ = [
    "SCHEMA",
    "default",
    "describe",
    "load",
    "meaning",
    "nearest_field",
    "resolved_run",
    "run",
    "validate",
]
