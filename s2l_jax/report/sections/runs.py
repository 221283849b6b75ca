"""Every run with its seed."""

from collections.abc import Callable, Mapping
from typing import Any

from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.table import NOT_MEASURED


@report_section("Runs and seeds", place=130)
def runs(section: Section, found: Findings) -> None:
    """A row for each run, with the columns that any of them fills."""
    columns: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("name", lambda run: run.name),
        ("method", lambda run: run.selection.get("method")),
        ("options", lambda run: _pairs(run.selection.get("options"))),
        ("seed", lambda run: run.selection.get("seed")),
        ("examples", lambda run: _integer(run.selection.get("size"))),
        ("clusters", lambda run: _integer(run.selection.get("num_clusters"))),
        ("steps", lambda run: _integer(run.target.get("steps"))),
        ("epochs", lambda run: _decimals(run.target.get("epochs"), 2)),
        ("tokens seen", lambda run: _integer(run.target.get("tokens_seen"))),
        ("final loss", lambda run: _decimals(run.target.get("final_loss"), 4)),
    )
    shown = [run for group in found.groups for run in group.runs if run.selection or run.target]
    cells = [[str(_dash(value(run))) for _, value in columns] for run in shown]
    used = [i for i in range(len(columns)) if any(line[i] != NOT_MEASURED for line in cells)]
    section.intro = f"Seed of the whole run: {_dash(found.results.get('seed'))}."
    section.header = [columns[i][0] for i in used]
    section.rows = [[line[i] for i in used] for line in cells]
    section.scroll = True
    section.missing = "nothing was selected or trained"


def _pairs(options: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{key}={value}" for key, value in sorted((options or {}).items())) or None


def _integer(value: Any) -> str | None:
    number = finite_number(value)
    return None if number is None else f"{number:,.0f}"


def _decimals(value: Any, digits: int) -> str | None:
    number = finite_number(value)
    return None if number is None else f"{number:.{digits}f}"


def _dash(value: Any) -> Any:
    return NOT_MEASURED if value is None else value
