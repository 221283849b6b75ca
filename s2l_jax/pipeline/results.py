"""What a workdir says when its parts are finished: config.json, results.json, the table and the page."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int64
from ml_collections import ConfigDict

import s2l_jax
from s2l_jax import artifacts
from s2l_jax.config.inputs import PROXY_PARTS, Inputs
from s2l_jax.config.replicates import subsets
from s2l_jax.console import say
from s2l_jax.data.pool import FieldMap, row_of
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.evaluation.predictions import PREDICTIONS, Prediction, read_predictions
from s2l_jax.pipeline.plan import proxy_part
from s2l_jax.pipeline.proxy_comparison import ComparedRun, Losses, compare_proxies
from s2l_jax.pipeline.stages import cluster_counts, evaluation, selection, theory
from s2l_jax.pipeline.stages import trajectories as columns
from s2l_jax.pipeline.stages.given_costs import ELSEWHERE
from s2l_jax.records import flattened, stored_results
from s2l_jax.report.comparisons import Scores, compare, comparison_lines, row_scores
from s2l_jax.report.findings import Findings, LeftOut
from s2l_jax.report.rows import PoolRows, RowText
from s2l_jax.report.runs import UNTUNED, RunResult, group_runs
from s2l_jax.selection import Selection
from s2l_jax.selection.suspects import LEFT_OUT
from s2l_jax.training.run import Run
from s2l_jax.trajectories.load import Trajectories

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "grain", "numpy")


def gather_results(
    run: Run,
    trajectories: Mapping[Inputs, Trajectories | None],
    rows: Mapping[Inputs, Int64[np.ndarray, "s"] | None],
    name: str,
) -> dict[str, Any]:
    """Every number of the workdir's finished parts; wall times are under `timing`.

    `trajectories`, and the pool rows that they are of (None: all), are by their proxy: the first is in the
    results as "proxy" and "trajectories", others under "proxies". `name` is the config's.
    """
    timing: dict[str, float] = {}
    results: dict[str, Any] = {"config_name": name, "seed": run.config.seed}

    def take(part: str) -> Any:
        stored = stored_results(run.workdir / part)
        if stored is None:
            return None
        timing[part] = stored["seconds"] + stored["results"].pop(ELSEWHERE, 0.0)
        return stored["results"]

    def take_all(part: str) -> dict[str, Any]:
        return {n: found for n in _names_in(run, part) if (found := take(f"{part}/{n}")) is not None}

    def take_inputs(inputs: Inputs) -> dict[str, Any]:
        losses, part = trajectories[inputs], proxy_part(run.config, inputs)
        made = take(part)
        trained, refreshes = part.rpartition("/")[2] == "proxy", (made or {}).pop("refreshes", [])
        found = {} if made is None or not trained else {"proxy": made}
        if losses is not None:
            found["trajectories"] = {
                "steps": losses.steps.tolist(),
                "num_examples": len(losses.losses),
                **({} if [*trajectories] == [Inputs.of(run.config)] else dataclasses.asdict(inputs)),
                **({} if rows[inputs] is None else {"slice_of": results["pool"]["num_examples"]}),
                **columns.described(run.inputs_of(inputs)),
                "refreshes": refreshes,
                **({} if trained else made or {}),
            }
        return found

    if (pool := take("pool")) is not None:
        results["pool"] = pool
    shown, *others = trajectories
    results |= take_inputs(shown)
    if others:
        results["proxies"] = {inputs.folder(run.config): take_inputs(inputs) for inputs in others}
    fitted = map(take, cluster_counts.compared(run, trajectories[shown]))
    if compared := [found for found in fitted if found is not None]:
        results["cluster_counts"] = sorted(compared, key=lambda found: found["num_clusters"])
    results["selections"], results["targets"] = take_all("selection"), take_all("target")
    results["evaluations"] = {}
    for model in _names_in(run, "evaluation"):
        if (gathered := evaluation.gather(run, model)) is not None:
            results["evaluations"][model], seconds = gathered
            timing |= {f"evaluation/{model}/{benchmark}": s for benchmark, s in seconds.items()}
    # What methods were given, each part charged to the selections that used it.
    used = {part for chosen in results["selections"].values() for part in chosen.get("used", ())}
    inputs = {part for part in used if part.rpartition("/")[2] not in PROXY_PARTS}
    if found_inputs := {part: found for part in sorted(inputs) if (found := take(part)) is not None}:
        results["selection_inputs"] = found_inputs
    # Subsets made under another config, by proxies that this one has not, are charged all the same.
    ours = {proxy_part(run.config, each) for each in trajectories}
    for left in sorted(used - inputs - ours):
        made = take(left) or {"training_flops": None}
        made.pop("refreshes", None)
        folder, _, kind = left.rpartition("/")
        if not folder or folder in results.get("proxies", {}):  # another is there
            results.setdefault("selection_inputs", {})[left] = made
        else:
            place = "proxy" if kind == "proxy" else "trajectories"
            results.setdefault("proxies", {})[folder] = {place: made}
    if (measured := take(theory.FOLDER)) is not None:
        results["theory"] = measured
    results["timing"] = timing
    return results


def compared(run: Run, results: dict[str, Any], given: ConfigDict) -> dict[str, Any]:
    """The part of results.json that compares methods with the baseline; nothing without one, or evaluations.

    `given` is the config before `replicates.expand`, whose report.baseline is a run of it.
    """
    runs = given.selection.runs
    baseline = given.report.baseline or next((n for n, each in runs.items() if each.method == "random"), "")
    if not baseline or not results["evaluations"]:
        return {}

    asked = {task.benchmark.name for task in evaluation.tasks_of(run)}  # others may be there from before

    @functools.cache
    def predictions(name: str) -> dict[str, list[Prediction]]:
        there = [
            each
            for each in artifacts.files_in(evaluation.folder(run, name))
            if each.name in asked or not asked
        ]
        done = [each for each in there if stored_results(each) is not None]
        return {each.name: read_predictions(each / PREDICTIONS) for each in done}

    def scores(result: RunResult, measure: str) -> Scores:
        rows = {
            benchmark: [(p.id, p.correct if measure == "accuracy" else p.loss) for p in found]
            for benchmark, found in predictions(result.name).items()
        }
        return row_scores(rows)

    return {"comparisons": compare(group_runs(results), scores, subsets(given, baseline), baseline)}


def compared_proxies(
    run: Run,
    results: dict[str, Any],
    trajectories: Mapping[Inputs, Trajectories | None],
    rows: Mapping[Inputs, Int64[np.ndarray, "s"] | None],
) -> dict[str, Any]:
    """The part of results.json on several proxies; nothing with one. Arguments as of `gather_results`."""
    users: dict[str, Inputs] = {}
    for name, chosen in results["selections"].items():
        inputs = Inputs.of(run.config, chosen["options"].get("proxy", ""), chosen["seed"])
        if inputs.proxy and inputs.proxy not in run.config.proxies:
            continue
        if proxy_part(run.config, inputs) in chosen.get("used", ()):
            users[name] = inputs
    if len({inputs.proxy for inputs in users.values()}) < 2:
        return {}
    losses = {}
    for inputs, found in trajectories.items():
        if found is not None:
            own = rows[inputs]
            losses[inputs] = Losses(found.losses, np.arange(len(found.losses)) if own is None else own)
    runs = [
        ComparedRun(name, inputs, Selection.load(selection.folder(run, name)))
        for name, inputs in users.items()
    ]
    parts = {inputs: proxy_part(run.config, inputs) for inputs in users.values()}
    return compare_proxies(runs, losses, results, parts)


def _names_in(run: Run, part: str) -> list[str]:
    """Names under a part of the workdir, in the order of the config."""
    names = [each.name for each in artifacts.files_in(run.workdir / part)]
    order = [UNTUNED, *run.config.selection.runs]
    return sorted(names, key=lambda n: (order.index(n) if n in order else len(order), n))


def write_report_of(
    run: Run,
    results: dict[str, Any],
    trajectories: Mapping[Inputs, Trajectories | None],
    rows: Mapping[Inputs, Int64[np.ndarray, "s"] | None],
    pool: PreparedPool | None,
) -> None:
    """Write the page of a run's results, and show the table; arguments as of `gather_results`.

    Where there are several proxies, or replicates have their own, the page shows the losses of the first.
    """
    import rich.console

    from s2l_jax.report.page import write_report
    from s2l_jax.report.table import show_table

    write_report(run.workdir / "report", findings_of(run, results, trajectories, rows, pool))
    show_table(results, rich.console.Console())
    for line in comparison_lines(results):
        say(line)
    say(f"report: {run.workdir / 'report' / 'index.html'}")


def findings_of(
    run: Run,
    results: dict[str, Any],
    trajectories: Mapping[Inputs, Trajectories | None],
    rows: Mapping[Inputs, Int64[np.ndarray, "s"] | None],
    pool: PreparedPool | None,
) -> Findings:
    """What a report of the workdir is made of; arguments as of `write_report_of`."""
    shown = next(iter(trajectories))
    losses, tracked, part = trajectories[shown], rows[shown], proxy_part(run.config, shown)
    selections = {name: Selection.load(selection.folder(run, name)) for name in results["selections"]}
    if not selections:
        return Findings(results, *_columns(losses))
    # Clusters are shown of the shown losses alone.
    clustered = [
        name
        for name, chosen in results["selections"].items()
        if all(used == part for used in chosen.get("used", ()) if used.rpartition("/")[2] in PROXY_PARTS)
    ]
    any_of = next(iter(selections.values()))
    kept = slice(None) if tracked is None else tracked
    taken = {name: np.zeros(len(each.labels), bool) for name, each in selections.items()}
    for name, each in selections.items():
        taken[name][each.indices] = True

    def texts(indices: Sequence[int]) -> list[RowText]:
        assert pool is not None
        of_pool = indices if tracked is None else tracked[np.asarray(indices, np.int64)]
        fields = FieldMap(**run.config.pool.fields.to_dict())
        originals = zip(of_pool, pool.originals(of_pool), strict=True)
        return [
            RowText.of(row_of(original, f"row {place} of the pool", fields)) for place, original in originals
        ]

    return Findings(
        results,
        *_columns(losses),
        labels={name: selections[name].labels[kept] for name in clustered},
        taken={name: each[kept] for name, each in taken.items()},
        rows=PoolRows(
            any_of.ids[kept],
            None if any_of.sources is None else any_of.sources[kept],
            None if any_of.num_tokens is None else any_of.num_tokens[kept],
            None if pool is None else pool.response_lengths()[kept],
            texts if pool is not None and run.config.report.texts else None,
        ),
        by_source={name for name in clustered if selections[name].cluster_sources is not None},
        left_out={n: out for n, each in selections.items() if (out := _left_out(each, kept)) is not None},
    )


def _left_out(chosen: Selection, kept: Any) -> LeftOut | None:
    """The rows of those that are kept which a selection could not take; None where it could take all."""
    codes = [code for code, reason in enumerate(chosen.reasons) if reason in LEFT_OUT]
    if not codes or chosen.reason_of is None or chosen.scores is None:
        return None
    reason_of, scores = chosen.reason_of[kept], chosen.scores[kept]
    rows = np.flatnonzero(np.isin(reason_of, codes))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return LeftOut(rows, scores[rows], [chosen.reasons[code] for code in reason_of[rows]])


def _columns(trajectories: Trajectories | None) -> tuple[Any, list[int]]:
    return (None, []) if trajectories is None else (trajectories.losses, trajectories.steps.tolist())


def in_words(config: ConfigDict, workdir: epath.PathLike, stages: Sequence[str]) -> dict[str, str]:
    """Everything that the processes of one run must have alike: settings, code and packages."""
    package = pathlib.Path(s2l_jax.__file__).parent
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(package.rglob("*.py"))))
    described_now = described(config, "")
    return {
        "workdir": os.fspath(workdir),
        "stages": ", ".join(stages),
        "code of s2l_jax": code.hexdigest()[:12],
        **{f"version of {package}": version for package, version in described_now["versions"].items()},
        **{name: repr(value) for name, value in flattened(described_now["config"])},
    }


def described(config: ConfigDict, name: str) -> dict[str, Any]:
    """What config.json has: the config as resolved, versions, seed."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "config_name": name,
        "config": config.to_dict(),
        "seed": config.seed,
        "versions": {"s2l_jax": s2l_jax.__version__, **versions, "python": platform.python_version()},
    }
