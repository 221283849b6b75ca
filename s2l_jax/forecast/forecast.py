"""What a run will take on a topology, from its config and its pool."""

import dataclasses
import itertools
import tempfile
from collections.abc import Mapping, Sequence

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from s2l_jax.config import resolved_run
from s2l_jax.config.runs import method_of
from s2l_jax.console import muted
from s2l_jax.errors import InputError
from s2l_jax.forecast.compiling import Compiled, Compiler
from s2l_jax.forecast.jobs import Job, jobs_of, leading_job, left_proxies, left_targets
from s2l_jax.forecast.layouts import Layouts
from s2l_jax.forecast.outcome import Outcome, outcome
from s2l_jax.forecast.stated_pool import SizedPool, Stated, repeated, spread
from s2l_jax.forecast.topology import Topology, describe
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.pipeline.plan import STAGES, Plan, proxy_inputs
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.pipeline.stages import evaluation
from s2l_jax.pipeline.stages.pool import prepare_pool
from s2l_jax.training.models import trained_config
from s2l_jax.training.run import Run

Sizes = tuple[int, int, int]

_COMPILED = 3  # meshes that fit, of those that are likeliest by count; a step takes one to two minutes each


@dataclasses.dataclass(frozen=True)
class Tried:
    """A mesh that was looked at: the leading job on it (by count, or None) and why that was not compiled."""

    sizes: Sizes
    outcome: Outcome | None
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
      mesh: sizes of its axes.
      pools: rows that each model sees.
      outcomes: of the run's jobs, in order.
      tried: the meshes that were looked at, if one was to be chosen.
      left_out: what the run will do that is not in `outcomes`.
    """

    topology: Topology
    mesh: Sizes
    pools: Mapping[str, SizedPool]
    outcomes: Sequence[Outcome]
    tried: Sequence[Tried] = ()
    left_out: Sequence[str] = ()

    @property
    def fits(self) -> bool:
        """Whether every job does."""
        return all(each.fits for each in self.outcomes)

    @property
    def seconds(self) -> float:
        """Projected for all jobs."""
        return sum(each.total for each in self.outcomes)


def forecast(
    config: ConfigDict,
    topology: str,
    *,
    workdir: epath.PathLike = "runs/plan",
    stages: Sequence[str] = STAGES,
    pool: Stated | None = None,
    search: bool = False,
    workers: int = 0,
) -> Forecast:
    """What the parts of a run that are to be made will take; nothing is trained and no weights are read.

    Args:
      config: of the run.
      topology: see `topology.describe`.
      workdir: what is there already is left out.
      stages: those that are asked for.
      pool: its size where it is not at hand, or is another's; None: that of `pool.path`.
      search: choose the cheapest mesh that fits, rather than `config.mesh`.
      workers: processes that compile; 0: one a core.

    Raises:
      InputError: an unknown topology, an impossible mesh, a config.json or pool that cannot be read, or
        nothing that is to be made on devices.
    """
    described = describe(topology)
    plan = plan_pipeline(config, workdir, stages=stages)
    plan.check()
    config = plan.config
    asked = (-1, 1, 1) if search else (config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    mesh = make_mesh(*asked, devices=described.devices)
    pools = _pools(config, plan, mesh, pool)
    layouts = Layouts()
    compiler = Compiler(described.name, workers) if described.compiles else None
    tried = _try_meshes(config, plan, pools, described, compiler, layouts) if search else []
    meshes = [make_mesh(*sizes, devices=described.devices) for sizes in _cheapest(tried)] or [mesh]
    found: Forecast | None = None
    for mesh in meshes:
        run = Run(config, epath.Path(workdir), mesh)
        jobs = jobs_of(run, plan, pools, layouts)
        sizes = (mesh.shape["data"], mesh.shape["fsdp"], mesh.shape["tensor"])
        outcomes = _outcomes(described, compiler, [(sizes, job) for job in jobs])
        found = Forecast(described, sizes, pools, outcomes, tried, _left_out(run, plan))
        if found.fits:
            break
    assert found is not None
    return found


def _outcomes(
    topology: Topology, compiler: Compiler | None, work: Sequence[tuple[Sizes, Job]]
) -> list[Outcome]:
    made: Sequence[Compiled | None] = [None] * len(work)
    if compiler is not None:
        made = compiler([(sizes, job.program, job.trips) for sizes, job in work])
    meshes = [make_mesh(*sizes, devices=topology.devices) for sizes, _ in work]
    return [
        outcome(job, topology, mesh, each) for (_, job), mesh, each in zip(work, meshes, made, strict=True)
    ]


def _try_meshes(
    config: ConfigDict,
    plan: Plan,
    pools: Mapping[str, SizedPool],
    topology: Topology,
    compiler: Compiler | None,
    layouts: Layouts,
) -> list[Tried]:
    """The leading job on every mesh that the models, batches and memory allow.

    Of those whose state fits, the cheapest by count are compiled, until a few are known to fit.
    """
    heads = [trained_config(each.config(config), "proxy").num_kv_heads for each in left_proxies(plan)]
    heads += [trained_config(config, "target").num_kv_heads] if left_targets(plan) else []
    count = len(topology.devices)
    tried: list[Tried] = []
    waiting: list[tuple[Outcome, Sizes]] = []
    for data, fsdp in itertools.product(range(1, count + 1), repeat=2):
        tensor, rest = divmod(count, data * fsdp)
        if rest or any(each % tensor for each in heads):
            continue
        sizes = data, fsdp, tensor
        mesh = make_mesh(*sizes, devices=topology.devices)
        try:
            with muted():  # of the kernel that each would take
                job = leading_job(Run(config, epath.Path(), mesh), plan, pools, layouts)
        except InputError as error:
            tried.append(Tried(sizes, None, str(error)))
            continue
        bare = outcome(job, topology, mesh, None)
        if bare.fits:
            waiting.append((bare, sizes))
        else:
            tried.append(Tried(sizes, bare, "its state alone is too large"))
    waiting.sort(key=lambda each: each[0].total)
    left = _COMPILED if compiler else len(waiting)
    while compiling := waiting[:left]:
        waiting = waiting[left:]
        work = [(sizes, bare.job) for bare, sizes in compiling]
        outcomes = _outcomes(topology, compiler, work)
        tried += [Tried(sizes, found) for (sizes, _), found in zip(work, outcomes, strict=True)]
        left -= sum(found.fits for found in outcomes)
    return tried + [Tried(sizes, bare, "by count, not compiled") for bare, sizes in waiting]


def _cheapest(tried: Sequence[Tried]) -> list[Sizes]:
    """Meshes to plan the whole run with, in turn, until it fits; where none can, the one that lacks least."""
    known = [(bool(each.why), each.sizes, each.outcome) for each in tried if each.outcome is not None]
    fitting = sorted((by_count, found.total, sizes) for by_count, sizes, found in known if found.fits)
    return [sizes for _, _, sizes in fitting] or [
        sizes for _, sizes in sorted((found.peak, sizes) for _, sizes, found in known)
    ][:1]


def _pools(config: ConfigDict, plan: Plan, mesh: Mesh, stated: Stated | None) -> dict[str, SizedPool]:
    models = list(dict.fromkeys(inputs.model for inputs in left_proxies(plan)))
    trained = [p for p in plan.parts if p.stage in ("target", "evaluation") and plan.is_left(p.name)]
    models += ["target"] * bool(trained)
    if stated is not None and stated.tokens:
        return dict.fromkeys(models, spread(stated, config.tokenize.max_length))
    if not config.pool.path:
        raise InputError("pool.path is empty: state its size, --plan_pool=ROWS:TOKENS:RESPONSE_TOKENS.")
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepared = prepare_pool(Run(config, epath.Path(folder), mesh), models=tuple(models))
        except InputError as error:
            raise InputError(
                f"{error} (A plan does without the pool: --plan_pool=ROWS:TOKENS:RESPONSE_TOKENS states it.)"
            ) from error
        return {what: repeated(prepared[what], stated.rows if stated else 0) for what in models}


def _left_out(run: Run, plan: Plan) -> list[str]:
    config, features = run.config, set[str]()
    for name in config.selection.runs if "selection" in plan.stages else ():
        features |= {each for each in method_of(resolved_run(config, name)).needs if each != "trajectories"}
    left = ["tokenising, reading and writing files, compiling", "reading prompts before they are answered"]
    if features:
        left.append(f"what methods go by beside losses ({', '.join(sorted(features))})")
    trained = {inputs.proxy for inputs in left_proxies(plan)}
    entries = {
        name: resolved_run(config, name)
        for name in config.selection.runs
        if plan.is_left(f"selection/{name}")
    }
    if any(proxy_inputs(config, e) is not None and e["proxy"] not in trained for e in entries.values()):
        left.append("selecting by losses that are there")
    answered_by = {task.benchmark.answered_by for task in evaluation.tasks_of(run)}
    if plan.has("evaluation") and "choices" in answered_by:
        left.append("likelihoods of choices")
    if plan.has("evaluation") and "text" in answered_by and config.evaluation.mode == "hybrid":
        left.append("answers in words where a program fails (evaluation.mode='hybrid')")
    if plan.has("analysis"):
        left.append("gradients for analysis.theory, and the target that is trained for them")
    if plan.to_sweep:
        left.append("sweeps of snapshots and of checkpoints that were trained elsewhere")
    return left
