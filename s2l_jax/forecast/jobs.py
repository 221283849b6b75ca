"""What a run has its devices do: each program, how often, and the work of it by count."""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from s2l_jax.clustering.rows import padded_rows, spread_over
from s2l_jax.config import resolved_run
from s2l_jax.config.inputs import Inputs
from s2l_jax.config.runs import UNTUNED, find_method
from s2l_jax.data.batching import Size, size_of
from s2l_jax.errors import InputError
from s2l_jax.evaluation.generation.generate import bucket
from s2l_jax.forecast.layouts import Layouts, Steps, laid_out
from s2l_jax.forecast.programs import (
    Decode,
    Lloyd,
    Program,
    Sweep,
    TrainStep,
    bytes_a_device,
    described,
    placed_params,
    width_of,
)
from s2l_jax.forecast.stated_pool import SizedPool
from s2l_jax.forecast.traffic import decoding_bytes, forward_bytes, training_bytes
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.pipeline.plan import Plan, proxy_inputs, proxy_part, target_names
from s2l_jax.pipeline.stages import evaluation
from s2l_jax.pipeline.stages.proxy import planned_sweeps
from s2l_jax.pipeline.stages.trajectories import packing_options, sweep_flops, tracked_of
from s2l_jax.selection.budget import Budget
from s2l_jax.training.flops import forward_flops, training_flops
from s2l_jax.training.models import trained_config
from s2l_jax.training.run import Run, check_batch, num_steps, train_settings, trainable
from s2l_jax.trajectories.packed_dataset import Packing
from s2l_jax.trajectories.slices import TrackedRows


@dataclasses.dataclass(frozen=True)
class Job:
    """A program and how a run uses it.

    Attributes:
      name: for people.
      stage: of the run.
      program: what is compiled; of several shapes the one with the most rows.
      model: "proxy" or "target", or "" for none.
      runs: how often it is done in the run.
      repeats: how often the program runs each time.
      trips: of its loops whose length the program does not say.
      flops: matrix products of each time, all devices, padding and recomputation not counted.
      executed: how many times as much is done, with padding and what is computed again.
      dtype: of the products.
      traffic: bytes to and from a device's memory, each time.
      beside: bytes that a device holds meanwhile and the program does not take, by what it is.
      one_device: whether one device does all of it.
    """

    name: str
    stage: str
    program: Program
    model: str
    runs: float
    flops: float
    dtype: str
    traffic: float
    repeats: float = 1.0
    trips: float = 1.0
    executed: float = 1.0
    beside: Mapping[str, float] = dataclasses.field(default_factory=dict)
    one_device: bool = False


def jobs_of(
    run: Run, plan: Plan, pools: Mapping[str, SizedPool], layouts: Layouts | None = None
) -> list[Job]:
    """The jobs of the parts of a plan that are to be made, in order.

    Args:
      run: on the mesh of the devices.
      plan: of the same config.
      pools: for the "proxy" and the "target", as far as they are needed.
      layouts: of the same config and pools on other meshes.

    Raises:
      InputError: nothing is left to be made on devices, a config.json that cannot be used, a batch that does
        not divide over the mesh, or a cadence that does not fit the run.
    """
    layouts = layouts or Layouts()
    found: list[Job] = []
    for proxy, times in collections.Counter(inputs.proxy for inputs in left_proxies(plan)).items():
        inputs = Inputs.of(run.config, proxy)
        found += _proxy(run.inputs_of(inputs), plan, inputs, times, pools[inputs.model], layouts)
    if targets := left_targets(plan):
        found += _targets(run, targets, pools["target"], layouts)
    if answers := left_answers(run, plan):
        found += _evaluation(run, answers, pools["target"])
    if not found:
        raise InputError("--plan: no model is left to be trained or evaluated in this workdir.")
    return found


def leading_job(run: Run, plan: Plan, pools: Mapping[str, SizedPool], layouts: Layouts) -> Job:
    """The job that a mesh is chosen by: a training step of the target, or else of the proxy, or decoding.

    Arguments and errors are those of `jobs_of`.
    """
    for inputs in left_proxies(plan):
        check_batch(run.inputs_of(inputs), "proxy")
    if targets := left_targets(plan):
        return next(_targets(run, targets, pools["target"], layouts, most_often=True))
    return jobs_of(run, plan, pools, layouts)[0]


def left_proxies(plan: Plan) -> list[Inputs]:
    """Whose proxies are to be trained."""
    return [inputs for inputs in plan.to_train if plan.is_left(proxy_part(plan.config, inputs))]


def left_targets(plan: Plan) -> list[str]:
    """The runs whose targets are to be trained."""
    return [name for name in target_names(plan.config) if plan.is_left(f"target/{name}")]


def left_answers(run: Run, plan: Plan) -> list[int]:
    """How many responses each model is to write, for each benchmark; choices are compared, not written."""
    models = [UNTUNED, *target_names(plan.config)]
    found: list[int] = []
    for task in evaluation.tasks_of(run):
        left = sum(plan.is_left(f"evaluation/{model}/{task.benchmark.name}") for model in models)
        if left and task.benchmark.answered_by != "choices":
            found += [len(evaluation.problems_of(run, task))] * left
    return found


def _proxy(run: Run, plan: Plan, inputs: Inputs, seeds: int, pool: Any, layouts: Layouts) -> Iterator[Job]:
    """The jobs of a proxy, which is trained once for each of so many seeds."""
    config, asked = run.config, run.config.trajectories
    model, settings = trained_config(config, "proxy"), config.proxy.train
    check_batch(run, "proxy")
    subset = trainable(pool)
    steps = num_steps(settings, len(subset))
    by_training = asked.source == "train"
    laid = laid_out(run, "proxy", pool, subset, model, steps, layouts)
    step = _training(run, "proxy", model, laid, steps, seeds, keep_losses=by_training)
    tracked = tracked_of(run, pool)
    held = {"parameters": step.program.arguments(run.mesh)["parameters"]}
    held["optimiser state"] = step.program.arguments(run.mesh)["optimiser state"]
    state = {name: bytes_a_device(each) for name, each in held.items()}
    columns = math.ceil(steps * settings.batch_size / len(subset)) if by_training else 0
    if not by_training:
        packing = layouts.once(
            ("sweep", run.key_of("proxy"), row_groups(run.mesh)),
            lambda: Packing(pool, tracked.rows, run.mesh, **packing_options(config, model)),
        )
        columns = len(planned_sweeps(run, steps))
        pinned = {"pinned rows": float(packing.bytes_a_device)} if packing.pinned else {}
        step = dataclasses.replace(step, beside=pinned)
        yield step
        yield _sweep(run, pool, model, packing, tracked, columns * seeds, state)
    else:
        yield step
    users = [
        name
        for name in config.selection.runs
        if proxy_inputs(config, entry := resolved_run(config, name)) is not None
        and entry["proxy"] == inputs.proxy
        and plan.is_left(f"selection/{name}")
    ]
    sources = np.asarray(pool.source_codes)[tracked.rows]
    yield _lloyd(run, sources, columns, columns * seeds + len(users), state)


def _training(
    run: Run,
    what: str,
    model: DecoderConfig,
    laid: Steps,
    steps: int,
    times: int,
    *,
    keep_losses: bool = False,
) -> Job:
    settings = train_settings(run, run.config[what].train)
    rows, mean, groups, mesh = laid.rows, laid.size, row_groups(run.mesh), run.mesh.shape
    tokens = rows.tokens.size * laid.mean_rows / rows.tokens.shape[2]
    # A pass backwards takes gradients for inputs and for weights.
    again = settings.remat == "full"
    passes = (2 if model.lora else 3) + again
    return Job(
        name=f"{run.key_of(what)}: training step",
        stage=what,
        program=TrainStep(model, settings, steps, rows, keep_losses),
        model=what,
        runs=steps * times,
        flops=training_flops(model, mean),
        dtype=settings.dtype,
        traffic=training_bytes(
            model,
            mean,
            width_of(settings.dtype),
            groups=groups,
            shards=mesh["fsdp"] * mesh["tensor"],
            tensor=mesh["tensor"],
            passes=passes,
            times=rows.tokens.shape[0],
        ),
        executed=tokens / max(1, mean.tokens - mean.spared) * (1 + again / (2 if model.lora else 3)),
    )


def _sweep(
    run: Run,
    pool: Any,
    model: DecoderConfig,
    packing: Packing,
    tracked: TrackedRows,
    sweeps: int,
    state: Mapping[str, float],
) -> Job:
    asked, skip = run.config.trajectories, len(packing.prefix)
    sizes = [
        part.row_length * part.shape.rows * len(part.layouts) * len(part.layouts[0].groups)
        for part in packing.parts
    ]
    part = packing.parts[int(np.argmax(sizes))]
    rows, slots = jax.tree.map(described, part.empty_block(skip))
    # In blocks of the part that is compiled, by tokens.
    blocks = len(part.layouts) * sum(sizes) / max(sizes)
    size = size_of(pool, tracked.rows, skip)
    tokens, groups = sum(sizes) * row_groups(run.mesh), row_groups(run.mesh)
    microbatches = blocks * rows.tokens.shape[0]
    width, tensor = width_of(asked.dtype), run.mesh.shape["tensor"]
    others = {"optimiser state": state["optimiser state"]}
    if packing.pinned:
        others["pinned rows of other lengths"] = float(max(0, packing.bytes_a_device - 12 * max(sizes)))
    return Job(
        name=f"{run.key_of('proxy')}: sweep",
        stage="proxy",
        program=Sweep(model, asked.dtype, run.config.attention, len(tracked.rows), skip, rows, slots),
        model="proxy",
        runs=sweeps,
        repeats=blocks,
        flops=sweep_flops(run, pool, tracked, model),
        dtype=asked.dtype,
        traffic=forward_bytes(model, size, width, groups=groups, tensor=tensor, times=round(microbatches)),
        executed=tokens / max(1, size.tokens - size.spared),
        beside=others,
    )


def _lloyd(run: Run, sources: np.ndarray, columns: int, fits: int, state: Mapping[str, float]) -> Job:
    """Fits of all rows, of each source on its own where the config says so; compiled for the largest."""
    clusters, by_source = run.config.clustering.num_clusters, run.config.selection.stratify_by == "source"
    total = len(sources)
    rows = int(np.bincount(sources).max()) if by_source else total
    held = 1 << max(2, (max(1, columns) - 1).bit_length())  # room for columns doubles from 4
    spread = spread_over(list(run.mesh.devices.flat), rows)
    padded = padded_rows(max(rows, clusters), run.mesh.size if spread else 1)
    # At most, the last assignment included; distances, and sums by a one-hot.
    iterations = run.config.clustering.restarts * (run.config.clustering.max_iterations + 1)
    products = 4.0 * total * clusters * columns * iterations
    return Job(
        name="k-means",
        stage="selection",
        program=Lloyd(rows, held, clusters),
        model="proxy",
        runs=fits,
        repeats=total / rows,
        flops=products,
        dtype="float32",
        traffic=4.0 * total * (held + 4) * iterations / (run.mesh.size if spread else 1),
        executed=padded * held / max(1, rows * columns),
        beside=state,
        one_device=spread is None,
    )


def _targets(
    run: Run, names: Sequence[str], pool: Any, layouts: Layouts, *, most_often: bool = False
) -> Iterator[Job]:
    """A job for each size of subset, or that of the one size trained most often."""
    model, train = trained_config(run.config, "target"), run.config.target.train
    check_batch(run, "target")
    usable = trainable(pool)
    sizes = collections.Counter(_subset_rows(run, name, pool, len(usable)) for name in names)
    for rows, times in sizes.most_common(1) if most_often else sizes.items():
        # A random subset: which rows are chosen is not known yet.
        subset = np.sort(np.random.default_rng(0).choice(usable, rows, replace=False))
        steps = num_steps(train, len(usable) if run.config.target.match_by == "steps" else rows)
        laid = laid_out(run, "target", pool, subset, model, steps, layouts)
        job = _training(run, "target", model, laid, steps, times)
        yield dataclasses.replace(job, name=f"{job.name}, {rows:,} rows")


def _subset_rows(run: Run, name: str, pool: Any, most: int) -> int:
    entry = resolved_run(run.config, name)
    if find_method(entry["method"]).takes_all:
        return most
    if entry["budget_tokens"]:
        budget = Budget(entry["budget_tokens"], "tokens")
        return min(
            most,
            round(entry["budget_tokens"] / float(np.mean(pool.lengths))),
            budget.most(most, pool.lengths),
        )
    return Budget(entry["budget_fraction"] or entry["budget"]).most(most, None)


def _evaluation(run: Run, answers: Sequence[int], pool: Any) -> Iterator[Job]:
    config = run.config.evaluation
    model = dataclasses.replace(trained_config(run.config, "target"), lora=None)
    groups, tensor = row_groups(run.mesh), run.mesh.shape["tensor"]
    per_group = math.ceil(min(config.batch_size, max(answers)) / groups)
    prompt = int(np.max(pool.prompt_lengths, initial=1))
    slots = bucket(min(prompt + config.max_new_tokens, model.max_positions))
    width, batch = width_of(config.dtype), groups * per_group
    mean = float(np.mean(pool.prompt_lengths)) + config.max_new_tokens / 2
    size = Size(batch, batch, round(batch * mean))
    whole = placed_params(model, run.mesh, DTYPES[config.dtype])
    yield Job(
        name="evaluation: decoding step",
        stage="evaluation",
        program=Decode(model, config.dtype, batch, slots, config.max_new_tokens),
        model="target",
        runs=sum(math.ceil(each * config.max_new_tokens / batch) for each in answers),
        flops=forward_flops(model, size),
        dtype=config.dtype,
        traffic=decoding_bytes(model, width, rows=per_group, slots=slots, tensor=tensor),
        beside={"parameters as they were loaded": bytes_a_device(whole)},
    )
