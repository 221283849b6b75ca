"""Every run with its seed."""

from collections.abc import Mapping
from typing import Any

from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.table import NOT_MEASURED

_COLUMNS = (  # title; part of the results and field; how it is written
    ("method", "selection", "method", "{}"),
    ("options", "selection", "options", "{}"),
    ("seed", "selection", "seed", "{}"),
    ("examples", "selection", "size", "{:,.0f}"),
    ("clusters", "selection", "num_clusters", "{:,.0f}"),
    ("steps", "target", "steps", "{:,.0f}"),
    ("epochs", "target", "epochs", "{:.2f}"),
    ("tokens seen", "target", "tokens_seen", "{:,.0f}"),
    ("final loss", "target", "final_loss", "{:.4f}"),
)


@report_section("Runs and seeds", place=130)
def runs(section: Section, found: Findings) -> None:
    """A row for each run, with the columns that any of them fills."""
    shown = [run for group in found.groups for run in group.runs if run.selection or run.target]
    cells = [
        [run.name, *(_cell(getattr(run, part).get(field), form) for _, part, field, form in _COLUMNS)]
        for run in shown
    ]
    header = ["name", *(title for title, *_ in _COLUMNS)]
    used = [i for i in range(len(header)) if any(line[i] != NOT_MEASURED for line in cells)]
    section.intro = f"Seed of the whole run: {_cell(found.results.get('seed'), '{}')}."
    section.header = [header[i] for i in used]
    section.rows = [[line[i] for i in used] for line in cells]
    section.scroll = True
    section.missing = "nothing was selected or trained"


def _cell(value: Any, form: str) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{key}={value[key]}" for key in sorted(value)) or None
    if form != "{}":
        value = finite_number(value)
    return NOT_MEASURED if value is None else form.format(value)
