"""Every field of a run, its checks, what it decides, and configs as files."""

from s2l_jax.config.fingerprint import deciding, deciding_run
from s2l_jax.config.help import describe, fault_of_run, meaning, nearest_field
from s2l_jax.config.model_fields import PROJECTIONS
from s2l_jax.config.runs import default, find_field, load, resolved_run, run
from s2l_jax.config.schema import SCHEMA
from s2l_jax.config.validate import validate

__all__ = [
    "PROJECTIONS",
    "SCHEMA",
    "deciding",
    "deciding_run",
    "default",
    "describe",
    "fault_of_run",
    "find_field",
    "load",
    "meaning",
    "nearest_field",
    "resolved_run",
    "run",
    "validate",
]
