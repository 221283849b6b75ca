"""Write one self-contained HTML page that shows what a run did and found, and its figures as files."""

import base64
import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.report.findings import Findings
from s2l_jax.report.head import facts, summary
from s2l_jax.report.section import Section, all_sections

_FIGURE_WIDTH = 720  # pixels of a figure that is written as a file


def write_report(folder: epath.PathLike, found: Findings) -> None:
    """Write index.html and figures/*.svg of what was found; the same findings give the same bytes.

    The page needs no network: what draws its figures is in it. Sections whose data the results lack are
    left out and listed with the reason at its end.

    Args:
      folder: to write to; each file appears when it is whole.
      found: the results, and the rows and trajectories they are of; any part may be missing.

    Raises:
      InputError: trajectories, steps and labels do not fit together.
    """
    folder, sections = epath.Path(folder), all_sections(found)
    write_figures(folder / "figures", sections)
    artifacts.write_text(folder / "index.html", render_report(found, sections))


def render_report(found: Findings, sections: Sequence[Section] | None = None) -> str:
    """The report as HTML text; `sections` are those of `found`, if they are made already."""
    import jinja2

    from s2l_jax.report.style import ON_PAGE, theme

    sections = all_sections(found) if sections is None else sections
    present = [section for section in sections if section.filled]
    data: dict[str, Any] = {}
    for section in present:
        for view, panels in enumerate(section.views.values()):
            data |= {f"{section.key}-{view}-{n}-spec": p.spec for n, p in enumerate(panels)}
        data |= {f"{section.key}-{name}": value for name, value in section.data.items()}
    scripts = []
    if data:
        data["theme"] = theme(ON_PAGE)
        own = dict.fromkeys(section.script for section in present if section.script)
        scripts = [_vega(), _asset("report.js"), *(_asset(name) for name in own)]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=str(found.results.get("config_name") or "run"),
        summary=summary(found.results, found.groups),
        facts=facts(found.results),
        sections=present,
        absent=[section for section in sections if section.missing and not section.filled],
        css=_asset("report.css"),
        data={name: _inert(value) for name, value in data.items()},
        scripts=scripts,
        script_hashes=" ".join(_hash_source(script) for script in scripts),
    )


def write_figures(folder: epath.PathLike, sections: Sequence[Section]) -> None:
    """Write every figure of the sections as an SVG file, and remove those of an earlier report."""
    import vl_convert

    from s2l_jax.report.style import ON_PAPER, theme

    folder = epath.Path(folder)
    written: set[str] = set()
    for section in sections:
        for view, panels in section.views.items():
            for panel in panels:
                name = _file_name([section.key, view, panel.title], written)
                written.add(name)
                spec = panel.spec | {"width": _FIGURE_WIDTH}
                svg = vl_convert.vegalite_to_svg(spec, config=theme(ON_PAPER), allowed_base_urls=[])
                artifacts.write_text(folder / name, _renumbered(svg))
    for file in artifacts.files_in(folder, "*.svg"):
        if file.name not in written:
            file.unlink()


def _renumbered(svg: str) -> str:
    """A figure whose ids count from 0; Vega counts on from the figure before."""
    numbers: dict[str, int] = {}
    return re.sub(
        r"\b(clip|gradient_)(\d+)\b", lambda m: f"{m[1]}{numbers.setdefault(m[0], len(numbers))}", svg
    )


def _file_name(parts: Sequence[str], taken: set[str]) -> str:
    """A plain name of the parts, with a number where another figure has it."""
    plain = "-".join(slug for part in parts if (slug := re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")))
    stem, name, n = plain[:80], f"{plain[:80]}.svg", 1
    while name in taken:
        n += 1
        name = f"{stem}-{n}.svg"
    return name


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed (BSD-3-Clause), which draw the figures."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub misses a default


def _asset(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("assets", name).read_text("utf-8")


def _inert(value: Any) -> str:
    """JSON for a script element: "<" could end it early; as an escape it means the same."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=artifacts.plain)
    return text.replace("<", "\\u003c")


def _hash_source(script: str) -> str:
    """What a Content-Security-Policy lets a script run by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
