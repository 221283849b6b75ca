"""A diagnostic: what it measured of a run, and where that is bad a verdict in words and what to try."""

import dataclasses
import types
from collections.abc import Callable, Iterable, Sequence

from s2l_jax.registry import Registry
from s2l_jax.report.findings import Findings

FAULT, WARNING = "fault", "warning"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Something that is wrong or may be.

    Attributes:
      grade: FAULT where the selection is not to be trusted, else WARNING.
      title: what is wrong, in a few words.
      words: the numbers that say so.
      advice: what to try.
      rows: those it is about, of which some are shown, by their places in `Findings`.
      kind: the name of the diagnostic, which `diagnose` fills in.
    """

    grade: str
    title: str
    words: str
    advice: str
    rows: Sequence[int] = ()
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number that was looked at, whether it is bad or not."""

    name: str
    value: str


Diagnose = Callable[[Findings], Iterable[Verdict | Measured]]

DIAGNOSTICS: Registry[Diagnose] = Registry("diagnostic", types.FunctionType, ["s2l_jax.report.diagnostics"])


def diagnostic(diagnose: Diagnose) -> Diagnose:
    """Enters a function that looks at a run under its name; what it cannot judge, it says nothing of."""
    DIAGNOSTICS.enter(diagnose.__name__, diagnose)
    return diagnose


def diagnose(found: Findings) -> tuple[list[Verdict], list[Measured]]:
    """What all diagnostics say of a run, faults first."""
    said = [(name, each) for name in sorted(DIAGNOSTICS) for each in DIAGNOSTICS[name](found)]
    verdicts = [dataclasses.replace(each, kind=name) for name, each in said if isinstance(each, Verdict)]
    verdicts.sort(key=lambda verdict: verdict.grade != FAULT)
    return verdicts, [each for _, each in said if isinstance(each, Measured)]
