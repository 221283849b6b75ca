"""The tables of the page that are of the run itself: results, every run with its seed, and files."""

from collections.abc import Mapping
from typing import Any

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.table import COLUMNS, NOT_MEASURED, table_rows

_RUN_COLUMNS = (  # title; part of the results and field; how it is written
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
# (part of the results, path, what is in it)
_FILES = (
    ("pool", "pool/", "the tokenised pool and its manifest"),
    ("proxy", "proxy/", "checkpoints and metrics of the proxy"),
    ("trajectories", "trajectories.zarr", "losses of each example at each checkpoint, and row ids"),
    ("selections", "selection/<name>/indices.npy", "the chosen rows of the pool, sorted"),
    ("selections", "selection/<name>/subset.jsonl", "the same rows with their original fields"),
    ("selections", "selection/<name>/clusters.parquet", "the cluster of each example"),
    ("selections", "selection/<name>/summary.json", "settings, counts and hashes"),
    ("targets", "target/<name>/", "checkpoints and metrics of the target"),
    ("targets", "target/<name>/hf/", "the trained target, which transformers loads"),
    ("evaluations", "evaluation/<name>/<benchmark>/predictions.jsonl", "each prompt, response and verdict"),
)


@report_section("Results", place=10)
def results(section: Section, found: Findings) -> None:
    """Methods and budgets against accuracy, held-out loss, steps and time."""
    section.intro = (
        "Runs that differ only in their seed are one row: the mean, and behind ± the standard "
        "deviation. A selection is charged the proxy and its sweeps wherever the method used "
        "them. A dash was not measured."
    )
    section.header = COLUMNS
    section.rows = [row.cells for row in table_rows(found.results)]
    section.missing = "nothing was selected, trained or evaluated"


@report_section("Runs and seeds", place=130)
def runs(section: Section, found: Findings) -> None:
    """A row for each run, with the columns that any of them fills."""
    shown = [run for group in found.groups for run in group.runs if run.selection or run.target]
    cells = [
        [run.name, *(_cell(getattr(run, part).get(field), form) for _, part, field, form in _RUN_COLUMNS)]
        for run in shown
    ]
    header = ["name", *(title for title, *_ in _RUN_COLUMNS)]
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


@report_section("Files", place=140)
def files(section: Section, found: Findings) -> None:
    """A row for each file that this run left."""
    section.intro = "Paths are under the run's working directory."
    section.header = ("path", "holds")
    section.rows = [
        ("config.json", "every setting, versions and the seed"),
        ("results.json", "every number of this page"),
        *((path, what) for part, path, what in _FILES if found.results.get(part)),
    ]
    section.scroll = True
