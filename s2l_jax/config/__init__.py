"""Every field of a run, its checks, and configs as files."""

from s2l_jax.config.schema import (
    RUN_SCHEMA,
    SCHEMA,
    default,
    describe,
    load,
    meaning,
    nearest_field,
    resolved_run,
    run,
    validate,
)

__all__ = [
    "RUN_SCHEMA",
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
