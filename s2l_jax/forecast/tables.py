"""A forecast as text: memory, work, what is sent, time, and what to change where it does not fit."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from s2l_jax.console import duration
from s2l_jax.data.responses import num_loss_tokens
from s2l_jax.forecast.forecast import Forecast, Tried
from s2l_jax.forecast.outcome import ATTAINED, Outcome
from s2l_jax.forecast.programs import OPTIMISER, PARAMETERS
from s2l_jax.parallel.mesh import AXES
from s2l_jax.training.out_of_memory import advice

_TEMPORARIES = "temporaries"


def in_words(found: Forecast, config: ConfigDict, name: str) -> str:
    """All that a forecast says, in lines."""
    parts = [_head(found, name)]
    if found.tried:
        parts.append(_meshes(found))
    parts += [_memory(found), _work(found)]
    if sent := _sent(found):
        parts.append(sent)
    parts += [_stages(found), _end(found, config)]
    return "\n\n".join(parts)


def _head(found: Forecast, name: str) -> str:
    count, topology = len(found.topology.devices), found.topology
    devices = f"{count} device{'s' * (count > 1)}"
    lines = [f"plan of {name} on {topology.name}: {devices}, mesh {_mesh(found.mesh)}"]
    for what, pool in found.pools.items():
        responses = num_loss_tokens(pool.lengths, pool.prompt_lengths)
        lines.append(
            f"pool as the {what} sees it: {len(pool.lengths):,} rows of {np.mean(pool.lengths):.0f} tokens "
            f"on average, {np.mean(responses):.0f} of them in responses"
            + (f"; all begin with the same {len(shared)}" if len(shared := pool.common_prefix) else "")
        )
    return "\n".join(lines)


def _mesh(sizes: Sequence[int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def _meshes(found: Forecast) -> str:
    def order(each: Tried) -> tuple[bool, bool, float]:
        found = each.outcome
        return found is None or not found.fits, bool(each.why), found.total if found else 0.0

    rows = []
    for each in sorted(found.tried, key=order):
        verdict = each.why or ("fits" if each.outcome and each.outcome.fits else "does not fit")
        total = "" if each.outcome is None else duration(each.outcome.total)
        peak = "" if each.outcome is None or each.why else _gib(each.outcome.peak)
        rows.append([_mesh(each.sizes), peak, total, verdict])
    job = next((each.outcome.job.name for each in found.tried if each.outcome), "")
    heads = [f"meshes, by the {job}", "GiB a device", "projected", ""]
    return _table(heads, rows)


def _memory(found: Forecast) -> str:
    rows = []
    for each in found.outcomes:
        known = {PARAMETERS: 0.0, OPTIMISER: 0.0, _TEMPORARIES: 0.0, "else": 0.0}
        for name, size in each.held.items():
            known[name if name in known else "else"] += size
        temporaries = _gib(known[_TEMPORARIES]) if each.compiled else "?"
        verdict = "" if each.fits else "  does not fit"
        peak = _gib(each.peak) if each.compiled else f"above {_gib(each.peak)}"
        of_each = [_gib(known[PARAMETERS]), _gib(known[OPTIMISER]), _gib(known["else"]), temporaries]
        rows.append([each.job.name, *of_each, peak, _gib(each.available) + verdict])
    heads = ["GiB of a device", "parameters", "optimiser", "else", "activations, temporaries", "peak", "of"]
    return _table(heads, rows)


def _work(found: Forecast) -> str:
    rows = []
    for each in found.outcomes:
        least = each.at_least
        rows.append(
            [
                each.job.name,
                f"{each.job.runs:,.0f}",
                f"{each.job.flops / 1e12:,.3g}",
                f"{each.job.executed:.2f}",
                f"{each.job.traffic / 1e9:,.3g}",
                f"{sum(sent for _, sent in each.sent.values()) / 1e9:,.3g}",
                each.bound,
                duration(least) if least >= 1 else f"{1000 * least:.2f} ms",
                duration(each.projected) if each.projected >= 1 else f"{1000 * each.projected:.2f} ms",
            ]
        )
    heads = ["each time", "times", "TFLOP of all", "x done", "GB of memory", "GB sent", "bound by"]
    return _table([*heads, "at least", "projected"], rows)


def _sent(found: Forecast) -> str:
    rows = [
        [each.job.name, kind, f"{times:,.0f}", f"{sent / 1e6:,.3g}"]
        for each in found.outcomes
        for kind, (times, sent) in sorted(each.sent.items())
    ]
    return _table(["collectives, each time", "kind", "times", "MB that a device sends"], rows) if rows else ""


def _stages(found: Forecast) -> str:
    devices, rows = len(found.topology.devices), []
    for stage in dict.fromkeys(each.job.stage for each in found.outcomes):
        rows.append(_time(stage, sum(x.total for x in found.outcomes if x.job.stage == stage), devices))
    rows.append(_time("all", found.seconds, devices))
    return _table(["projection, not measured", "time", "device hours"], rows)


def _time(what: str, seconds: float, devices: int) -> list[str]:
    return [what, duration(seconds), f"{seconds * devices / 3600:,.2f}"]


def _end(found: Forecast, config: ConfigDict) -> str:
    shares = ", ".join(f"{share:.0%} of the {kind} rate" for kind, share in ATTAINED.items())
    lines = [f"Projected times count on {shares} of the data sheet; left out: {'; '.join(found.left_out)}."]
    if not all(each.compiled for each in found.outcomes):
        lines.append("Not compiled for this topology: activations are not known.")
    if counted := [each.job.name for each in found.outcomes if each.is_counted]:
        lines.append(
            f"Counted by the shardings, not read off a program: what is sent by {'; '.join(counted)}."
        )
    for each in found.outcomes:
        if not each.fits:
            changes = advice(config, _part(each), each.held, each.available)
            lines.append(
                f"{each.job.name} needs {_gib(each.peak)} GiB of a device's {_gib(each.available)}. "
                f"Change: {'; or '.join(changes)}."
            )
    if found.fits:
        lines.append("It fits." if all(each.compiled for each in found.outcomes) else "The state fits.")
    return "\n".join(lines)


def _part(each: Outcome) -> str:
    return "sweep" if each.job.name.endswith("sweep") else each.job.stage


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f}" if size >= 2**24 or not size else f"{size / 2**30:.1g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first to the left, numbers to the right."""
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
