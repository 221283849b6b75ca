"""The head of the page: what was run, in a sentence and a few numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from s2l_jax.report.runs import FULL, UNTUNED, RunGroup


def summary(results: Mapping[str, Any], groups: Sequence[RunGroup]) -> str:
    """One sentence on what was run."""
    methods = sorted({g.method for g in groups} - {UNTUNED, FULL})
    selections = len(results.get("selections") or {})
    trained = len(results.get("targets") or {})
    evaluated = len(results.get("evaluations") or {})
    counted = ((selections, "selection"), (trained, "target run"), (evaluated, "evaluation"))
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counted if count]
    text = ", ".join(parts) or "No runs yet"
    return f"{text}. Methods: {', '.join(methods)}." if methods else f"{text}."


def facts(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
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
