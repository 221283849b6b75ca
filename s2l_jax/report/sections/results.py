"""The results as one table."""

from s2l_jax.report import table
from s2l_jax.report.section import Findings, Section, report_section


@report_section("Results", place=10)
def results(section: Section, found: Findings) -> None:
    """Methods and budgets against accuracy, held-out loss, steps and time."""
    section.intro = (
        "Runs that differ only in their seed are one row: the mean, and in brackets the lowest and "
        "the highest. A selection is charged the proxy and its sweeps wherever the method used "
        "them. A dash was not measured."
    )
    section.header = table.COLUMNS
    section.rows = [row.cells for row in table.table_rows(found.results)]
    section.missing = "nothing was selected, trained or evaluated"
