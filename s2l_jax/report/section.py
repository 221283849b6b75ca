"""A section of the report: figures and tables under a heading; each is entered by the file that makes it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from s2l_jax.registry import Registry
from s2l_jax.report.findings import Findings


@dataclasses.dataclass(frozen=True)
class Panel:
    """A figure (an Altair chart) and its title; the panels of a view are side by side if they fit."""

    title: str
    chart: Any

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """The figure as Vega-Lite; a test compares all with its schema, which takes a while."""
        return self.chart.to_dict(validate=False)


@dataclasses.dataclass
class Section:
    """One heading of the page: figures in views with switchable names and a table, or why it is left out.

    A section with neither figures, rows nor a reason is not on the page at all.
    """

    key: str
    title: str
    intro: str = ""
    views: dict[str, list[Panel]] = dataclasses.field(default_factory=dict)
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    scroll: bool = False
    missing: str = ""
    template: str = ""  # of assets/, for a section that is more than figures and a table
    content: dict[str, Any] = dataclasses.field(default_factory=dict)  # what its template shows
    script: str = ""  # of assets/, which its template needs
    data: dict[str, Any] = dataclasses.field(default_factory=dict)  # JSON that the script reads

    @property
    def filled(self) -> bool:
        """Whether there is something to see."""
        return bool(self.views or self.rows or self.template)

    @property
    def text_columns(self) -> set[int]:
        """The columns that are read from the left: the first, and those with words."""
        return {0} | {i for row in self.rows for i, cell in enumerate(row) if len(cell) > 24}

    def show(self, drawing: Any, view: str = "", title: str = "") -> None:
        """Add a figure to a view, or remember why there is none."""
        if isinstance(drawing, str):
            self.missing = drawing
        else:
            self.views.setdefault(view, []).append(Panel(title, drawing))


Fill = Callable[[Section, Findings], None]


@dataclasses.dataclass(frozen=True)
class Entry:
    """How a section is filled, and where it stands on the page: the smallest place comes first."""

    title: str
    place: int
    fill: Fill


SECTIONS: Registry[Entry] = Registry("section of the report", Entry, ["s2l_jax.report.sections"])


def report_section(title: str, *, place: int) -> Callable[[Fill], Fill]:
    """Enters a function of a file of `sections/` that fills a section, under the function's name."""

    def enter(fill: Fill) -> Fill:
        SECTIONS.enter(fill.__name__, Entry(title, place, fill))
        return fill

    return enter


def all_sections(found: Findings) -> list[Section]:
    """Every section, in the order of the page."""
    sections = []
    for name, entry in sorted(SECTIONS.items(), key=lambda item: item[1].place):
        made = Section(name.replace("_", "-"), entry.title)
        entry.fill(made, found)
        sections.append(made)
    return sections
