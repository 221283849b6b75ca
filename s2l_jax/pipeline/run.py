"""The stages in order, what a workdir says of them, and the table and report at the end."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Int64
from ml_collections import ConfigDict

from s2l_jax import artifacts
from s2l_jax.config import validate
from s2l_jax.console import say
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.pipeline.stages import benchmarks, cluster_counts, evaluation, pool, proxy, selection, target
from s2l_jax.pipeline.stages import trajectories as columns
from s2l_jax.records import stored_results
from s2l_jax.selection import Selection
from s2l_jax.training.run import Run, check_model
from s2l_jax.trajectories.load import Trajectories

STAGES = ("pool", "proxy", "trajectories", "selection", "target", "evaluation", "report")
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "grain", "numpy")


def run_pipeline(
    config: ConfigDict, workdir: epath.PathLike, *, stages: Sequence[str] = STAGES, name: str = ""
) -> dict[str, Any]:
    """Run the stages of an experiment, going on from what the workdir holds.

    Args:
      config: from `s2l_jax.config.default()`, changed.
      workdir: one experiment's folder; made if need be.
      stages: which to run, by name or an unambiguous beginning of it.
      name: of the config, for the report.

    Returns:
      The content of results.json.

    Raises:
      InputError: bad config, bad input, or a workdir that holds another experiment.
      DivergedError: training met a loss that is not finite.
    """
    validate(config)
    wanted = find_stages(stages)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    run = Run(config, _absolute(workdir), mesh)
    device = jax.devices()[0]
    say(f"{jax.device_count()} x {device.device_kind}, mesh {dict(mesh.shape)}, workdir {run.workdir}")
    _check_has_trajectories(run)
    models = _models(run, wanted)
    # Of other models in `models` the tokeniser alone is needed.
    if _trains_proxy(run, wanted):
        check_model(run, "proxy")
    if "target" in models:
        check_model(run, "target")
    if "evaluation" in wanted:
        benchmarks.check_benchmarks(run)
    _check_paths(run)
    if "selection" in wanted:
        selection.check_methods(run)
    if _trains_proxy(run, wanted):
        proxy.check_cadence(run)
    pools = pool.prepare_pool(run, models=models)
    if processes.is_writer() and not (run.workdir / "config.json").exists():
        artifacts.write_json(run.workdir / "config.json", _described(config, name))
    if _trains_proxy(run, wanted):
        proxy.train_proxy(run, _pool_of(pools, "proxy"))
    if _sweeps_again(run, wanted):
        columns.sweep_snapshots(run, _pool_of(pools, "proxy"))
    ids = np.asarray(pools["rows"].ids) if pools else None
    trajectories = columns.collect_trajectories(run, ids)
    if "selection" in wanted:
        cluster_counts.compare_all(run, trajectories)
        selection.select_all(run, pools, trajectories)
    has_targets = bool(target.target_names(run))
    if "target" in wanted and has_targets:
        target.train_targets(run, _pool_of(pools, "target"))
    if "evaluation" in wanted and has_targets:
        evaluation.evaluate_all(run)
    rows = columns.tracked_rows(trajectories, ids)
    results = gather_results(run, trajectories, rows, name)
    if processes.is_writer():
        # Now that no part has refused it, this sitting's config is the workdir's.
        artifacts.write_json(run.workdir / "config.json", _described(config, name))
        artifacts.write_json(run.workdir / "results.json", results)
    if "report" in wanted and processes.is_writer():
        _report(run, results, trajectories, rows)
    return results


def find_stages(names: Sequence[str]) -> list[str]:
    """Full names of stages, in order, from names or unambiguous beginnings.

    Raises:
      InputError: a name that fits no stage or several.
    """
    found = set()
    for name in names:
        fitting = [stage for stage in STAGES if name and stage.startswith(name)]
        if len(fitting) != 1:
            raise InputError(
                f"--stages: {name!r} names {'no stage' if not fitting else ' and '.join(fitting)}; "
                f"stages are {', '.join(STAGES)}."
            )
        found.add(fitting[0])
    return [stage for stage in STAGES if stage in found]


def gather_results(
    run: Run, trajectories: Trajectories | None, rows: Int64[np.ndarray, "s"] | None, name: str
) -> dict[str, Any]:
    """Every number of the workdir's finished parts; wall times are under `timing`.

    Args:
      run: the run.
      trajectories: those that there are.
      rows: the pool rows that they are of; None for all.
      name: of the config.
    """
    timing: dict[str, float] = {}
    results: dict[str, Any] = {"config_name": name, "seed": run.config.seed}

    def take(part: str) -> Any:
        stored = stored_results(run.workdir / part)
        if stored is None:
            return None
        timing[part] = stored["seconds"]
        return stored["results"]

    for part in ("pool", "proxy"):
        if (found := take(part)) is not None:
            results[part] = found
    if trajectories is not None:
        results["trajectories"] = {
            "steps": trajectories.steps.tolist(),
            "num_examples": len(trajectories.losses),
            **({} if rows is None else {"slice_of": results["pool"]["num_examples"]}),
            **columns.described(run),
            "refreshes": results.get("proxy", {}).pop("refreshes", []),
            **(take(columns.SWEPT) or {}),
        }
    compared = [take(f"{cluster_counts.FOLDER}/{n}") for n in _names_in(run, cluster_counts.FOLDER)]
    if finished := [found for found in compared if found is not None]:
        results["cluster_counts"] = sorted(finished, key=lambda found: found["num_clusters"])
    for part, key in (("selection", "selections"), ("target", "targets")):
        found_parts = {n: take(f"{part}/{n}") for n in _names_in(run, part)}
        results[key] = {n: found for n, found in found_parts.items() if found is not None}
    results["evaluations"] = {}
    for model in _names_in(run, "evaluation"):
        if (gathered := evaluation.gather(run, model)) is not None:
            results["evaluations"][model], seconds = gathered
            timing |= {f"evaluation/{model}/{benchmark}": s for benchmark, s in seconds.items()}
    # What methods were given, each part charged to the selections that used it.
    inputs = {part for chosen in results["selections"].values() for part in chosen.get("used", ())}
    if found_inputs := {part: found for part in sorted(inputs) if (found := take(part)) is not None}:
        results["selection_inputs"] = found_inputs
    results["timing"] = timing
    return results


def _names_in(run: Run, part: str) -> list[str]:
    """Names under a part of the workdir, in the order of the config."""
    where = run.workdir / part
    names = sorted(f.name for f in where.glob("*")) if where.exists() else []
    order = [evaluation.UNTUNED, *run.config.selection.runs]
    return sorted(names, key=lambda n: (order.index(n) if n in order else len(order), n))


def _absolute(workdir: epath.PathLike) -> epath.Path:
    text = os.fspath(workdir)
    if "://" not in text:
        return epath.Path(os.path.abspath(os.path.expanduser(text)))
    if not text.startswith("gs://"):
        raise InputError(f"--workdir={text}: a local folder or gs://BUCKET/... is needed.")
    try:
        epath.Path(text).exists()
    except Exception as error:  # whatever the store's client raises
        raise InputError(f"--workdir={text}: the object store cannot be reached ({error}).") from error
    return epath.Path(text)


def _check_has_trajectories(run: Run) -> None:
    """Find now that methods by trajectory have none, and no pool to measure them on.

    Raises:
      InputError: so.
    """
    config = run.config
    if _needs_trajectories(run) and not (
        config.pool.path or config.trajectories.path or config.trajectories.snapshots
    ):
        raise InputError(
            "pool.path and trajectories.path are both empty: set trajectories.path to losses measured "
            "elsewhere (docs/trajectories.md), or pool.path to the rows to measure them on."
        )


def _check_paths(run: Run) -> None:
    """Find now what is misspelt and would be met only after long work."""
    config = run.config
    for field, path in (
        ("trajectories.path", config.trajectories.path),
        ("trajectories.slice_ids", config.trajectories.slice_ids),
        ("trajectories.snapshots", config.trajectories.snapshots),
        ("selection.queries", config.selection.queries),
    ):
        if path and not epath.Path(path).exists():
            raise InputError(f"{field}={path!r} does not exist.")


def _models(run: Run, wanted: list[str]) -> tuple[str, ...]:
    """The models whose tokeniser the wanted stages need."""
    models = []
    if _trains_proxy(run, wanted) or _sweeps_again(run, wanted):
        models.append("proxy")
    if "target" in wanted and target.target_names(run):
        models.append("target")
    if not models and run.config.proxy.checkpoint and not run.config.trajectories.path:
        models.append("proxy")
    if "selection" in wanted:
        models += selection.models_of(run)
    return tuple(dict.fromkeys(models))


def _trains_proxy(run: Run, wanted: list[str]) -> bool:
    elsewhere = run.config.trajectories.path or run.config.trajectories.snapshots
    return "proxy" in wanted and not elsewhere and _needs_trajectories(run)


def _sweeps_again(run: Run, wanted: list[str]) -> bool:
    return "trajectories" in wanted and bool(run.config.trajectories.snapshots) and _needs_trajectories(run)


def _needs_trajectories(run: Run) -> bool:
    return not run.config.selection.runs or selection.needs_trajectories(run)


def _pool_of(pools: dict[str, PreparedPool], model: str) -> PreparedPool:
    if model not in pools:
        raise InputError(f"pool.path is empty: the {model} stage needs a pool.")
    return pools[model]


def _report(
    run: Run,
    results: dict[str, Any],
    trajectories: Trajectories | None,
    rows: Int64[np.ndarray, "s"] | None,
) -> None:
    import rich.console

    from s2l_jax.report.page import write_report
    from s2l_jax.report.table import results_table

    labels = {name: Selection.load(selection.folder(run, name)).labels for name in results["selections"]}
    if rows is not None:
        labels = {name: of_pool[rows] for name, of_pool in labels.items()}
    page = run.workdir / "report" / "index.html"
    write_report(
        page,
        results,
        trajectories=None if trajectories is None else trajectories.losses,
        steps=[] if trajectories is None else trajectories.steps.tolist(),
        labels=labels,
    )
    rich.console.Console().print(results_table(results))
    say(f"report: {page}")


def _described(config: ConfigDict, name: str) -> dict[str, Any]:
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "config_name": name,
        "config": config.to_dict(),
        "seed": config.seed,
        "versions": versions | {"python": platform.python_version()},
    }
