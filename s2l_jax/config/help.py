"""What `--help` and errors on the command line say of fields."""

import inspect
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from s2l_jax.config.fields import Field, Group, unknown
from s2l_jax.config.inputs import GROUPS
from s2l_jax.config.runs import COMMON, find_field, run_fields, run_schema
from s2l_jax.config.schema import SCHEMA, walk

if TYPE_CHECKING:
    from s2l_jax.selection.method import Method

OTHER_PROXIES = "for runs that name it: what differs from `proxy` and `trajectories`"


def describe() -> str:
    """All fields with defaults and meanings, group by group, for `--help`."""
    from s2l_jax.selection.method import METHODS

    lines = list(_lines(SCHEMA, ""))
    lines += ["", "One subset of selection.runs, whatever its method", ""]
    lines += [_describe_field(f"selection.runs.<name>.{n}", f) for n, f in COMMON.items()]
    lines += ["", "The methods", ""]
    lines += [
        textwrap.fill(f"  {n}: {first_line(m)}", 90, subsequent_indent="      ") for n, m in METHODS.items()
    ]
    lines += ["", f"Another proxy, {OTHER_PROXIES}", ""]
    lines += ["  proxies.<name>.proxy.<field>, proxies.<name>.trajectories.<field>"]
    for method in METHODS:
        if own := {n: f for n, f in run_schema(method).items() if n not in COMMON}:
            lines += ["", f"One subset of selection.runs with method={method!r}", ""]
            lines += [_describe_field(f"selection.runs.<name>.{n}", f) for n, f in own.items()]
    return "\n".join(lines).lstrip("\n")


def nearest_field(path: str) -> str | None:
    """`; did you mean ...?` (or `.`) for a dotted path that is no field; None for one that is."""
    if find_field(path) is not None:
        return None
    parts = path.split(".")
    if parts[:2] == ["selection", "runs"]:
        if len(parts) != 4:
            return f"; a run's fields are selection.runs.<name>.{', .'.join(run_fields())}."
        return unknown(parts[3], run_fields())
    if parts[0] == "proxies":
        return f"; fields of another proxy are proxies.<name>.{' and proxies.<name>.'.join(GROUPS)}."
    known = [known for known, _ in walk()]
    inner = [name for name in known if name.startswith(f"{path}.")]
    return f"; it is a group, with {inner[0]!r} in it." if inner else unknown(path, known)


def meaning(path: str) -> str:
    """What a field may be and what it means, for a dotted path that is a field."""
    field = find_field(path)
    assert field is not None
    return f"{field.kind}: {field.doc}"


def _lines(group: Group, prefix: str) -> Iterator[str]:
    own = [_describe_field(prefix + n, f) for n, f in group.items() if isinstance(f, Field)]
    yield from ("", group.doc, "", *own)
    for name, inner in group.items():
        if isinstance(inner, Group):
            yield from _lines(inner, f"{prefix}{name}.")


def limits(field: Field) -> str:
    """A field's unit, what it may be, and where it counts; empty where there is nothing to say."""
    counts = f"counts {' and '.join(map(str, field.when))}" if field.when else ""
    return "; ".join(filter(None, (field.unit, field.allowed, counts)))


def first_line(method: "Method") -> str:
    """What a method takes, from its docstring."""
    return (inspect.getdoc(method.rank) or "").partition("\n")[0]


def fault_of_run(config: ConfigDict, path: str, method: str = "") -> str:
    """Why a field `selection.runs.NAME.FIELD` is none of a config's; empty where it is one.

    `method` is the one that the command line gives the run, if any.
    """
    from s2l_jax.selection.method import METHODS

    name, field = path.split(".")[2:]
    runs, added = config.selection.runs, f"config.selection.runs.{name} = run(method="
    if name not in runs:
        return f"there is no run {name!r}, only {', '.join(runs)}; a config file adds it: {added}...)."
    if field in runs[name] or field in run_schema(runs[name].method):
        return ""
    having = [each for each in METHODS if field in run_schema(each)]
    wanted = method if method in having else having[0]
    they_have = f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} it"
    return (
        f"run {name!r} has method {runs[name].method!r}, which has no option {field!r}; {they_have}. "
        f"A config file sets both: {added}{wanted!r}, {field}=...)."
    )


def _describe_field(path: str, field: Field) -> str:
    text = f"{field.doc} ({limits(field)})" if limits(field) else field.doc
    head = f"  {path} = {field.default!r}"
    return f"{head}\n{textwrap.indent(textwrap.fill(text, 84), '      ')}"
