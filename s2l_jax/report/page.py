"""Write one self-contained HTML page that shows what a run did and found."""

import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from s2l_jax import artifacts
from s2l_jax.report import page_head
from s2l_jax.report.runs import group_runs
from s2l_jax.report.section import Findings, all_sections


def write_report(
    path: epath.PathLike,
    results: Mapping[str, Any],
    *,
    trajectories: Float[np.ndarray, "n t"] | None,
    steps: Sequence[int],
    labels: Mapping[str, Int[np.ndarray, "n"]],
) -> None:
    """Write the report of `results` to `path`, atomically; the same inputs give the same bytes.

    The page needs no network: Plotly's JavaScript is in it once. Sections whose data `results`
    lacks are left out and listed with the reason at its end.

    Args:
      path: the HTML file to write.
      results: the content of results.json; any part may be missing.
      trajectories: losses in nats per token, [N, T], memory-mapped if large (a sample is read);
        None leaves that section out.
      steps: the proxy's optimiser step of each of the T columns.
      labels: the cluster of each pool example, [N] (negative: none), by selection name.

    Raises:
      InputError: trajectories, steps and labels do not fit together.
    """
    artifacts.write_text(path, render_report(results, trajectories, list(steps), labels))


def render_report(
    results: Mapping[str, Any],
    trajectories: Float[np.ndarray, "n t"] | None,
    steps: list[int],
    labels: Mapping[str, Int[np.ndarray, "n"]],
) -> str:
    """The report as HTML text; arguments as for `write_report`."""
    import jinja2
    import plotly.io
    import plotly.offline

    groups = group_runs(results)
    sections = all_sections(Findings(results, groups, trajectories, steps, labels))
    present = [section for section in sections if section.filled]
    views = {
        f"{section.key}-{i}": figure for section in present for i, figure in enumerate(section.views.values())
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = importlib.resources.files(__package__).joinpath("report.html").read_text("utf-8")
    return environment.from_string(source).render(
        title=str(results.get("config_name") or "run"),
        summary=page_head.summary(results, groups),
        facts=page_head.facts(results),
        sections=present,
        absent=[section for section in sections if section.missing and not section.filled],
        heights={key: figure.layout.height for key, figure in views.items()},
        # "<" could end the script element early; as an escape it means the same to JSON.
        specs={
            key: plotly.io.to_json(figure, engine="json").replace("<", "\\u003c")
            for key, figure in views.items()
        },
        plotly_js=plotly.offline.get_plotlyjs(),
    )
