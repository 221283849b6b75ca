"""Pages that are made of the code: every field of a config, and every selection method."""

import inspect
import pathlib
from collections.abc import Iterator

from sphinx.application import Sphinx

from s2l_jax.config.fields import Field, Group
from s2l_jax.config.help import OTHER_PROXIES, limits
from s2l_jax.config.runs import COMMON, run_schema
from s2l_jax.config.schema import SCHEMA
from s2l_jax.selection.method import METHODS


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("config-inited", lambda app, config: _write(pathlib.Path(app.srcdir) / "reference"))
    return {"parallel_read_safe": True}


def _write(folder: pathlib.Path) -> None:
    pages = {"configuration.md": _configuration(), "methods.md": _methods()}
    for name, lines in pages.items():
        text = "\n".join(lines) + "\n"
        path = folder / name
        if not path.exists() or path.read_text() != text:  # Sphinx reads again what is newer
            path.write_text(text)


def _configuration() -> Iterator[str]:
    yield "# Configuration"
    yield ""
    yield "Every field, its default and its meaning: the same text as `python launch.py --help`. On the"
    yield "command line a field is `--config.GROUP.FIELD=VALUE`; lists have commas between."
    yield from _group(SCHEMA, "")
    yield from ("", "## Another proxy", "")
    yield f"`proxies.<name>.proxy.<field>` and `proxies.<name>.trajectories.<field>`, {OTHER_PROXIES}."
    yield from ("", "## One subset of `selection.runs`", "")
    yield "These fields all methods have; each method's own are on [its page](methods.md)."
    yield from _fields("", COMMON)


def _group(group: Group, prefix: str) -> Iterator[str]:
    own = {name: field for name, field in group.items() if isinstance(field, Field)}
    if own:
        yield from ("", f"## {group.doc}", "")
        yield from _fields(prefix, own)
    for name, inner in group.items():
        if isinstance(inner, Group):
            yield from _group(inner, f"{prefix}{name}.")


def _fields(prefix: str, fields: dict[str, Field]) -> Iterator[str]:
    for name, field in fields.items():
        yield from ("", f"`{prefix}{name}` = `{field.default!r}`")
        yield f": {_escaped(field.doc)}" + (f" *({_escaped(limits(field))})*" if limits(field) else "")


def _methods() -> Iterator[str]:
    yield "# Methods"
    yield ""
    yield "What `method=` of a run may be. How they compare and when to use which is told under"
    yield "[selection](../guide/selection.md), how to add one under"
    yield "[adding things](../design/adding-things.md#a-selection-method)."
    for name, method in METHODS.items():
        own = {n: f for n, f in run_schema(name).items() if n not in COMMON}
        yield from ("", f"## {name}", "")
        needs = ", ".join(f"`{feature}`" for feature in sorted(method.needs))
        yield _escaped((inspect.getdoc(method.rank) or "").partition("\nOptions:")[0].strip())
        yield from ("", f"Needs: {needs or 'nothing but the rows'}.")
        yield from _fields("", own)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_")
