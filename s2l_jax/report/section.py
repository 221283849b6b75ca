"""A section of the report: figures and tables under a heading; each is entered by the file that makes it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from s2l_jax.registry import Registry
from s2l_jax.report.runs import RunGroup

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a report is made of; see `page.write_report`."""

    results: Mapping[str, Any]
    groups: Sequence[RunGroup]
    trajectories: Float[np.ndarray, "n t"] | None
    steps: Sequence[int]
    labels: Mapping[str, Int[np.ndarray, "n"]]

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of the results, empty where it is missing."""
        return self.results.get(name) or {}


@dataclasses.dataclass
class Section:
    """One heading of the page: figures under switchable names and a table, or why it is left out.

    A section with neither figures, rows nor a reason is not on the page at all.
    """

    key: str
    title: str
    intro: str = ""
    views: dict[str, "go.Figure"] = dataclasses.field(default_factory=dict)
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    scroll: bool = False
    missing: str = ""

    @property
    def filled(self) -> bool:
        """Whether there is something to see."""
        return bool(self.views or self.rows)

    def show(self, drawing: "go.Figure | str", name: str = "") -> None:
        """Add a figure, or remember why there is none."""
        if isinstance(drawing, str):
            self.missing = drawing
        else:
            self.views[name] = drawing


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
