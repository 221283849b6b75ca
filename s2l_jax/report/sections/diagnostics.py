"""What is wrong with the run, in words, on top of the page."""

from collections.abc import Sequence
from typing import Any

from s2l_jax.report.diagnostic import Verdict, diagnose
from s2l_jax.report.findings import Findings
from s2l_jax.report.rows import shortened
from s2l_jax.report.section import Section, report_section

SHOWN_ROWS = 12
_TEXT = 400


@report_section("Diagnostics", place=5)
def diagnostics(section: Section, found: Findings) -> None:
    """A verdict for everything that was found wrong, and the numbers that were looked at."""
    verdicts, measured = diagnose(found)
    if not verdicts and not measured:
        return
    alike = _alike(verdicts)
    if verdicts:
        kinds = f", {len(alike)} kinds of it," if len(alike) < len(verdicts) else ""
        section.intro = (
            f"{len(verdicts)} of what was looked at{kinds} may be wrong. Each comes with what to try."
        )
    else:
        section.intro = "Nothing that was looked at is wrong."
    section.template = "diagnostics.html"
    section.content = {
        "verdicts": [(first, rows_of(found, first), others) for first, *others in alike],
        "measured": measured,
    }


def _alike(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """Verdicts of one kind together, as each of many runs may have its own; those about rows stay alone."""
    kinds: dict[Any, list[Verdict]] = {}
    for number, verdict in enumerate(verdicts):
        kinds.setdefault(number if len(verdict.rows) else (verdict.grade, verdict.kind), []).append(verdict)
    return list(kinds.values())


def rows_of(found: Findings, verdict: Verdict) -> list[tuple[str, str, str]]:
    """Some of the rows that a verdict is about: which they are, prompt and response."""
    shown = [int(row) for row in verdict.rows[:SHOWN_ROWS]]
    rows = found.rows
    if rows is None or not shown:
        return []
    named = [
        f"row {row:,}, id {rows.ids[row]}" + ("" if rows.sources is None else f", {rows.sources[row]}")
        for row in shown
    ]
    if rows.texts is None:
        return [(name, "", "") for name in named]
    texts = [[shortened(part, _TEXT) for part in text] for text in rows.texts(shown)]
    return [(name, prompt, response) for name, (prompt, response) in zip(named, texts, strict=True)]
