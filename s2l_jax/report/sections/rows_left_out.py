"""Rows that runs left out before they chose: not learnt, or with a loss that rises."""

from s2l_jax.report.findings import Findings, LeftOut
from s2l_jax.report.rows import shortened
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.table import NOT_MEASURED

SHOWN_ROWS = 20
SHOWN_SETS = 3
_TEXT = 300  # characters


@report_section("Rows left out before choosing", place=52)
def rows_left_out(section: Section, found: Findings) -> None:
    """The worst of the rows that `drop_unlearnt` and `drop_rising` kept out, with their texts."""
    alike: dict[bytes, list[str]] = {}
    for name, each in found.left_out.items():
        alike.setdefault(each.rows.tobytes(), []).append(name)
    if not alike:
        return
    section.intro = (
        "The runs named here could not take these rows (drop_unlearnt, drop_rising): read whether they are "
        "wrong. The score is how far a row's lowest late loss is above those of its source, in robust "
        f"standard deviations. The {SHOWN_ROWS} highest are shown; all are in the runs' clusters.parquet."
    )
    section.header = ("selection", "rows left out", "row", "source", "score", "reason", "text")
    section.scroll = True
    if len(alike) > SHOWN_SETS:
        section.intro += f" Of {len(alike)} sets of such rows the first {SHOWN_SETS} are shown."
    for names in list(alike.values())[:SHOWN_SETS]:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        section.rows = [*section.rows, *_lines(found, found.left_out[names[0]], f"{names[0]}{others}")]


def _lines(found: Findings, each: LeftOut, name: str) -> list[tuple[str, ...]]:
    shown = [int(row) for row in each.rows[:SHOWN_ROWS]]
    rows = found.rows
    texts = [""] * len(shown)
    if rows is not None and rows.texts is not None:
        texts = [shortened(" → ".join(text), _TEXT) for text in rows.texts(shown)]
    return [
        (
            name,
            f"{len(each.rows):,}",
            f"{row:,}",
            NOT_MEASURED if rows is None or rows.sources is None else str(rows.sources[row]),
            f"{score:.1f}",
            reason,
            text,
        )
        for row, score, reason, text in zip(shown, each.scores, each.reasons, texts, strict=False)
    ]
