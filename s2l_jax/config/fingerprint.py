"""What decides a part of the workdir: the settings that its record holds, and a later sitting must have."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.runs import resolved_run, run_schema
from s2l_jax.config.schema import walk

Settings = dict[str, Any]

# What the clustering that is refreshed with each column goes by.
_RUNNING_CLUSTERS = ("clustering.num_clusters", "selection.stratify_by")
_KMEANS = tuple(f"clustering.{name}" for name in ("init", "restarts", "max_iterations", "tolerance"))

# The fields and groups of fields that each part reads; what else decides it, the part itself tells. (Features
# say themselves what they read.)
_READS: dict[str, tuple[str, ...]] = {
    "pool": ("pool", "tokenize"),
    "proxy": ("proxy", "trajectories", *_RUNNING_CLUSTERS, "seed"),
    "snapshots": ("tokenize",),
    "trajectories": ("trajectories.dtype", *_RUNNING_CLUSTERS, "seed"),
    "imported": (),
    "cluster_counts": ("seed", *_KMEANS),
    "target": ("target", "seed"),
    "theory": ("analysis", "target", "seed"),
    "evaluation": ("evaluation", "target", "tokenize", "pool.fields", "seed"),
}
PARTS = tuple(_READS)


def deciding(
    config: ConfigDict, part: str | tuple[str, ...], beyond: Mapping[str, Any] | None = None
) -> Settings:
    """The settings that decide a part of the workdir (one of `PARTS`, or what it reads), by dotted names.

    They are the fields of the groups that the part reads, without those that only say how and those that
    are not looked at as others are set; and `beyond`: where other parts are read, their fingerprints; for a
    field that decides by content (`Field.by_content`), under its name what it leads to.
    """
    values, read = config.to_dict(), _READS[part] if isinstance(part, str) else part
    settings = {}
    for name, field in walk():
        *groups, last = name.split(".")
        group = functools.reduce(operator.getitem, groups, values)
        is_read = any(f"{name}.".startswith(f"{each}.") for each in read)
        if is_read and field.decides and not field.by_content and field.is_active(group):
            settings[name] = group[last]
    return settings | dict(beyond or {})


def deciding_run(config: ConfigDict, name: str, beyond: Mapping[str, Any] | None = None) -> Settings:
    """The settings that decide the subset of an entry of selection.runs.

    They are its method, seed, budget and the options that its method looks at, with what they inherit; and
    `beyond`, settings of what its method goes by.
    """
    schema = run_schema(config.selection.runs[name].method)
    entry = resolved_run(config, name)
    settings = {
        f"selection.runs.{name}.{field}": value
        for field, value in entry.items()
        if field == "seed" or (schema[field].decides and schema[field].is_active(entry))
    }
    return settings | dict(beyond or {})


def untrained(model: str) -> tuple[str, ...]:
    """What is read of the "proxy" or "target" as it came."""
    return tuple(f"{model}.{name}" for name in ("checkpoint", "init", "model_config", "tokenizer"))
