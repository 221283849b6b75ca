"""Write one self-contained HTML page that shows what a run did and found."""

import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from s2l_jax import artifacts
from s2l_jax.report.runs import FULL, UNTUNED, RunGroup, group_runs
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
        summary=_summary(results, groups),
        facts=_facts(results),
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


def _summary(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> str:
    """One sentence on what was run."""
    methods = sorted({g.method for g in groups} - {UNTUNED, FULL})
    selections = len(results.get("selections") or {})
    trained = len(results.get("targets") or {})
    evaluated = len(results.get("evaluations") or {})
    counted = ((selections, "selection"), (trained, "target run"), (evaluated, "evaluation"))
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counted if count]
    text = ", ".join(parts) or "No runs yet"
    return f"{text}. Methods: {', '.join(methods)}." if methods else f"{text}."


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, value, remark) for the head of the page; only what is known."""
    pool, proxy = results.get("pool") or {}, results.get("proxy") or {}
    swept = results.get("trajectories") or {}
    targets = list((results.get("targets") or {}).values())
    found = []
    if pool.get("num_examples") is not None:
        remark = []
        if pool.get("sources"):
            remark.append(f"{len(pool['sources'])} sources")
        if pool.get("num_tokens"):
            remark.append(f"{_short(pool['num_tokens'])} tokens")
        if pool.get("num_without_loss"):
            remark.append(f"{pool['num_without_loss']:,} without a loss")
        found.append(("pool", f"{pool['num_examples']:,} examples", ", ".join(remark)))
    if proxy:
        found.append(_model_fact("proxy", [proxy]))
    if swept.get("steps"):
        found.append(_trajectories_fact(swept))
    if targets:
        found.append(_model_fact("target", targets))
    return found


def _trajectories_fact(swept: Mapping[str, Any]) -> tuple[str, str, str]:
    columns, count, pool = len(swept["steps"]), swept.get("num_examples"), swept.get("slice_of")
    remark = []
    if count is not None:
        remark.append(f"of {count:,} examples")
    if pool is not None:
        remark.append(f"a slice of the pool's {pool:,}: selections by trajectory are from it")
    by_training = swept.get("source") == "train"
    what = f"training losses of {columns} epochs" if by_training else f"{columns} checkpoints"
    return "trajectories", what, ", ".join(remark)


def _model_fact(what: str, models: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    parameters = {m["parameters"] for m in models if m.get("parameters")}
    steps = sorted({m["steps"] for m in models if m.get("steps")})
    size = " / ".join(f"{_short(p)}" for p in sorted(parameters))
    span = " to ".join(f"{count:,}" for count in sorted({*steps[:1], *steps[-1:]}))
    planned = next((f" of {m['planned_steps']:,}" for m in models if m.get("planned_steps")), "")
    why = "; it ended once the clusters had settled" if planned else ""
    return what, f"{size} parameters" if size else "-", f"{span}{planned} steps{why}" if span else ""


def _short(number: float) -> str:
    """1,234,567 as 1.2 M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"
