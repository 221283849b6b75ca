"""The results as a table: one row per method, options and budget, with the spread over seeds."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from s2l_jax.console import harmless
from s2l_jax.report.runs import RunGroup, Statistic, group_runs

COLUMNS = (
    "selection",
    "budget",
    "seeds",
    "target steps",
    "accuracy %",
    "held-out loss",
    "select time",
    "target time",
)
NOT_MEASURED = "-"
_WIDEST = 1000  # characters
_HEADER_LINES = max(len(column.split()) for column in COLUMNS)


@dataclasses.dataclass(frozen=True)
class TableRow:
    """The formatted cells of one group, in the order of `COLUMNS`."""

    group: RunGroup
    cells: tuple[str, ...]


def results_table(results: Mapping[str, Any]) -> Table:
    """Methods and budgets against accuracy, held-out loss, steps and time.

    Runs that differ only in their seed are one row: the mean, and for the accuracy its standard
    deviation. What was not measured is "-". The time of a selection includes the proxy and its
    sweeps wherever the method needed them.
    """
    rows = table_rows(results)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for i, column in enumerate(COLUMNS):
        # A narrow terminal may break cells at spaces, and never cuts a number.
        words = [word for text in (column, *(row.cells[i] for row in rows)) for word in text.split()]
        table.add_column(
            column.replace(" ", "\n"),
            justify="right" if i else "left",
            min_width=max(len(word) for word in words),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(escape(harmless(cell)) for cell in row.cells))
    return table


def show_table(results: Mapping[str, Any], console: Console) -> None:
    """Print the table whole: in lines as long as they must be, and where that is no terminal unbroken."""
    table = results_table(results)
    widest = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
    if console.width < widest:
        # Rich leaves columns out that do not fit.
        least = console.width if console.is_terminal else widest
        words = sorted(word for column in COLUMNS for word in column.split())
        whole = (w for w in range(least, widest) if sorted(_header(console, table, w)) == words)
        console.width = next(whole, widest)
    console.print(table)


def _header(console: Console, table: Table, width: int) -> list[str]:
    lines = console.render_lines(table, console.options.update(width=width))
    return " ".join(segment.text for line in lines[:_HEADER_LINES] for segment in line).split()


def table_rows(results: Mapping[str, Any]) -> list[TableRow]:
    """The rows of the results table, as text."""
    num_examples = results.get("pool", {}).get("num_examples")
    rows = []
    for group in group_runs(results):
        cells = (
            group.label,
            _budget_cell(group, num_examples),
            group.replicates if group.seeds else NOT_MEASURED,
            format_range(group.statistic(lambda run: run.target.get("steps")), "{:,.0f}".format),
            _accuracy(group.statistic(lambda run: run.accuracy)),
            _mean(group.statistic(lambda run: run.heldout_loss), "{:.3f}".format),
            _mean(group.statistic(lambda run: run.selection_seconds), format_seconds),
            _mean(group.statistic(lambda run: run.target_seconds), format_seconds),
        )
        rows.append(TableRow(group, cells))
    return rows


def format_range(statistic: Statistic | None, number: Callable[[float], str]) -> str:
    """The mean, followed by (lowest–highest) when several runs differ."""
    if statistic is None:
        return NOT_MEASURED
    low, high = number(statistic.low), number(statistic.high)
    spread = "" if low == high else f" ({low}–{high})"
    return f"{number(statistic.mean)}{spread}"


def format_seconds(seconds: float) -> str:
    """A duration to about two digits: 0.42s, 38s, 4m 05s, 2h 10m."""
    if 0 < seconds < 0.01:
        return "<0.01s"
    if seconds < 9.95:
        return f"{seconds:.2g}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}h {minutes % 60:02d}m"


def _accuracy(statistic: Statistic | None) -> str:
    """The mean in per cent, and the standard deviation over several runs."""
    if statistic is None:
        return NOT_MEASURED
    spread = f" ± {100 * statistic.deviation:.1f}" if statistic.count > 1 else ""
    return f"{100 * statistic.mean:.1f}{spread}"


def _mean(statistic: Statistic | None, number: Callable[[float], str]) -> str:
    return NOT_MEASURED if statistic is None else number(statistic.mean)


def _budget_cell(group: RunGroup, num_examples: int | None) -> str:
    """The rows that were asked for, or where there are not as many those there were."""
    if group.budget is None:
        return NOT_MEASURED
    budget = min(group.budget, max(run.selection.get("size", group.budget) for run in group.runs))
    if not num_examples:
        return f"{budget:,}"
    percent = 100 * budget / num_examples
    return f"{budget:,} ({percent:.0f}%)" if percent >= 10 else f"{budget:,} ({percent:.2g}%)"
