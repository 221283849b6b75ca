"""The stages of an experiment in order, as its plan has them."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from s2l_jax import artifacts
from s2l_jax.config import validate
from s2l_jax.config.inputs import Inputs, of_proxy
from s2l_jax.config.replicates import expand
from s2l_jax.console import say
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes
from s2l_jax.parallel.agreement import check_alike
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.pipeline.known import check_known
from s2l_jax.pipeline.owner import owning
from s2l_jax.pipeline.plan import STAGES, Plan, make_plan, proxy_part, sweeps_saved
from s2l_jax.pipeline.results import (
    compared,
    compared_proxies,
    described,
    gather_results,
    in_words,
    write_report_of,
)
from s2l_jax.pipeline.stages import (
    cluster_counts,
    evaluation,
    pool,
    proxy,
    saved_parameters,
    selection,
    target,
    theory,
)
from s2l_jax.pipeline.stages import trajectories as columns
from s2l_jax.training.boards import check_wandb
from s2l_jax.training.profiler import Steps
from s2l_jax.training.run import Run, check_model


def run_pipeline(
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    stages: Sequence[str] = STAGES,
    name: str = "",
    profile: Steps | None = None,
    parts: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the stages of an experiment, going on from what the workdir holds.

    Args:
      config: from `s2l_jax.config.default()`, changed.
      workdir: one experiment's folder; made if need be.
      stages: which to run, by name or an unambiguous beginning of it.
      name: of the config, for the report.
      profile: steps of each training run to trace.
      parts: of the workdir, to make these alone, for a process that has it (`pipeline.members`).

    Returns:
      The content of results.json, nothing where `parts` are made.

    Raises:
      InputError: bad config, bad input, a workdir that holds another experiment or is in use, or processes
        that were not started alike.
      DivergedError: training met a loss that is not finite.
    """
    check_alike(in_words(config, workdir, stages))
    plan = plan_pipeline(config, workdir, stages=stages)
    plan.check()
    if parts:
        return _run(config, plan, name, profile, parts)
    with owning(plan.workdir):
        if processes.is_writer():
            artifacts.remove_leftovers(plan.workdir)
        # Again, as another run may just have left what it made.
        plan = plan_pipeline(config, plan.workdir, stages=stages)
        plan.check()
        return _run(config, plan, name, profile)


def _run(
    given: ConfigDict, plan: Plan, name: str, profile: Steps | None, parts: Sequence[str] = ()
) -> dict[str, Any]:
    """The stages of a plan, in the workdir that this run has for itself; what results.json holds.

    `given` is the config as it was before its replicates and budgets were spelt out.
    """
    config = plan.config
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    run = Run(config, plan.workdir, mesh, profile, parts)
    device = jax.devices()[0]
    say(f"{jax.device_count()} x {device.device_kind}, mesh {dict(mesh.shape)}, workdir {run.workdir}")
    _check(run, plan)
    pools = pool.prepare_pool(run, models=plan.models)
    check_known(run, plan, pools)
    if processes.is_writer() and not (run.workdir / "config.json").exists():
        artifacts.write_json(run.workdir / "config.json", described(given, name))
    for inputs in plan.trained:
        if not run.makes(proxy_part(config, inputs)):
            continue
        if plan.has("proxy"):
            proxy.train_proxy(run.inputs_of(inputs), _pool_of(pools, inputs.model))
        elif plan.leaves("proxy"):
            proxy.check_content(run.inputs_of(inputs), _pool_of(pools, "rows"))
    for inputs in plan.swept:
        if not run.makes(proxy_part(config, inputs)):
            continue
        if plan.has("trajectories"):
            saved_parameters.sweep_saved(run.inputs_of(inputs), _pool_of(pools, inputs.model))
        else:
            saved_parameters.check_content(run.inputs_of(inputs), _pool_of(pools, "rows"))
    ids = np.asarray(pools["rows"].ids) if pools else None
    trajectories = {each: columns.collect_trajectories(run.inputs_of(each), ids) for each in plan.inputs}
    rows = {inputs: columns.tracked_rows(found, ids) for inputs, found in trajectories.items()}
    contexts = selection.contexts_of(run, pools, trajectories, rows)
    if "selection" in plan.stages:
        cluster_counts.compare_all(run, trajectories.get(Inputs.of(config)))
        selection.select_all(run, contexts)
    else:
        selection.check_content(run, contexts)
    if plan.has("target"):
        waiting = evaluation.waiting(run) if "evaluation" in plan.stages else ()
        target.train_targets(run, _pool_of(pools, "target"), waiting)
    else:
        target.check_content(run)
    if plan.has("evaluation"):
        evaluation.evaluate_all(run)
    else:
        evaluation.check_content(run)
    if plan.has("analysis"):
        theory.measure(run, _pool_of(pools, "target"), contexts)
    else:
        theory.check_content(run)
    if parts:
        return {}
    results = gather_results(run, trajectories, rows, name)
    results |= compared(run, results, given) | compared_proxies(run, results, trajectories, rows)
    if processes.is_writer():
        # Now that no part has refused it, this sitting's config is the workdir's.
        artifacts.write_json(run.workdir / "config.json", described(given, name))
        artifacts.write_json(run.workdir / "results.json", results)
    if "report" in plan.stages and processes.is_writer():
        write_report_of(run, results, trajectories, rows, pools.get("rows"))
    processes.barrier("report")  # JAX waits for the others at the end, but not as long as a page may take
    return results


def plan_pipeline(config: ConfigDict, workdir: epath.PathLike, *, stages: Sequence[str] = STAGES) -> Plan:
    """What `run_pipeline` would do, which runs and writes nothing.

    Raises:
      InputError: bad config, no such stage, no such workdir can be, or a file that is named and not there.
    """
    validate(config)
    config = expand(config)
    plan = make_plan(config, _absolute(workdir), stages)
    _check_has_trajectories(plan)
    if "selection" in plan.stages:
        selection.check_needs(config)
    for proxy_name in ("", *config.proxies):
        _check_paths(of_proxy(config, proxy_name))
    return plan


def _check(run: Run, plan: Plan) -> None:
    """Raise an InputError now for a model, benchmark, method or cadence that would stop the run later."""
    if any(part.stage in ("proxy", "target") and part.is_left for part in plan.parts):
        check_wandb(run.config.wandb)
    # Of other models in `plan.models` the tokeniser alone is needed.
    if plan.has("target") or plan.has("analysis"):
        check_model(run, "target")
    if "evaluation" in plan.stages:
        evaluation.check_benchmarks(run)
    if "selection" in plan.stages:
        selection.check_methods(run)
    for inputs in plan.to_train:
        check_model(run.inputs_of(inputs), "proxy")
        proxy.check_cadence(run.inputs_of(inputs))
    for inputs in plan.to_sweep:
        saved_parameters.check_saved(run.inputs_of(inputs))


# Orbax takes paths for patterns of files in places, and a backslash for a slash.
_UNFIT = "[]*?\\\0"
_UNFIT_REMOTE = _UNFIT + "#%" + "".join(map(chr, [*range(1, 32), 127]))


def _absolute(workdir: epath.PathLike) -> epath.Path:
    text = os.fspath(workdir)
    is_local = "://" not in text
    path = os.path.abspath(os.path.expanduser(text)) if is_local else text
    unfit = [character for character in (_UNFIT if is_local else _UNFIT_REMOTE) if character in path]
    if unfit or any("\ud800" <= character <= "\udfff" for character in path):
        found = " and ".join(map(repr, unfit)) or "bytes that are not UTF-8"
        raise InputError(
            f"--workdir={path!r}: its path has {found}, which not all libraries read: rename it."
        )
    if is_local:
        return epath.Path(path)
    if not text.startswith("gs://"):
        raise InputError(f"--workdir={text}: a local folder or gs://BUCKET/... is needed.")
    try:
        epath.Path(text).exists()
    except Exception as error:  # whatever the store's client raises
        raise InputError(f"--workdir={text}: the object store cannot be reached ({error}).") from error
    return epath.Path(text)


def _check_has_trajectories(plan: Plan) -> None:
    """Find now that methods by trajectory have none, and no pool to measure them on."""
    config = plan.config
    needed = not config.selection.runs or selection.needs_trajectories(config)
    for made in (inputs.config(config) for inputs in plan.inputs):
        if config.pool.path or made.trajectories.path:
            continue
        if sweeps_saved(made):
            raise InputError("pool.path is empty: set it to the rows whose losses are to be measured.")
        if not needed:
            continue
        raise InputError(
            "pool.path and trajectories.path are both empty: set trajectories.path to losses measured "
            "elsewhere (docs/guide/trajectories.md), or pool.path to the rows to measure them on."
        )


def _check_paths(config: ConfigDict) -> None:
    """Find now what is misspelt and would be met only after long work."""
    named = [("trajectories", field) for field in ("path", "slice_ids", "snapshots")]
    for group, field in (*named, ("selection", "queries")):
        if (path := config[group][field]) and not epath.Path(path).exists():
            raise InputError(f"{group}.{field}={path!r} does not exist; {artifacts.near(path)}")


def _pool_of(pools: dict[str, PreparedPool], model: str) -> PreparedPool:
    if model not in pools:
        raise InputError(f"pool.path is empty: the stage of the {model} needs a pool.")
    return pools[model]
