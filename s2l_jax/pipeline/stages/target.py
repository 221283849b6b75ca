"""Stage `target`: fine-tune the target on each subset, all by the same steps and schedule or epochs."""

import hashlib
from collections.abc import Collection

import numpy as np
from etils import epath

from s2l_jax import integrity, records
from s2l_jax.config import deciding, resolved_run
from s2l_jax.console import say
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.models.parameters import num_trained
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.pipeline.plan import target_names
from s2l_jax.pipeline.stages import selection as selections
from s2l_jax.records import Record, stored_digests, stored_results
from s2l_jax.selection import Selection
from s2l_jax.training.export import export
from s2l_jax.training.flops import training_flops
from s2l_jax.training.loop import train
from s2l_jax.training.metrics import loss_curve
from s2l_jax.training.out_of_memory import explained
from s2l_jax.training.run import Run, make_batches, num_steps, train_settings, trainable

_SUBSET = "selection.sha256"  # setting that says which rows a target was trained on


def folder(run: Run, name: str) -> epath.Path:
    """Where a target's artifacts are."""
    return run.workdir / "target" / name


def train_targets(run: Run, pool: PreparedPool, read: Collection[str] = ()) -> None:
    """Train every target that is not finished; all settings are compared before the first step.

    Those in `read` will be read: where what one left is gone or damaged, it is exported again.
    """
    names = [name for name in target_names(run.config) if run.makes(f"target/{name}")]
    replicates = {name: run.of_seed(resolved_run(run.config, name)["seed"]) for name in names}
    for name, replicate in replicates.items():
        _record(replicate, name, pool, Selection.load(selections.folder(run, name)))
    for name, replicate in replicates.items():
        _train_one(replicate, name, pool, name in read)


def check_content(run: Run) -> None:
    """Raise an InputError if a target was trained on another subset than its selection is now."""
    for name in target_names(run.config):
        chosen = stored_results(selections.folder(run, name))
        if chosen is not None and run.makes(f"target/{name}"):
            content = {_SUBSET: chosen["results"]["indices_sha256"]}
            records.check_content(folder(run, name), f"target/{name}", content)


def _record(run: Run, name: str, pool: PreparedPool, chosen: Selection) -> Record:
    subset_sha256 = hashlib.sha256(chosen.indices.tobytes()).hexdigest()
    beyond = {"pool.fingerprint": pool.fingerprint, _SUBSET: subset_sha256}
    beyond |= run.model_content("target")
    return Record(folder(run, name), f"target/{name}", deciding(run.config, "target", beyond))


def _train_one(run: Run, name: str, pool: PreparedPool, is_read: bool) -> None:
    config = run.config
    chosen = Selection.load(selections.folder(run, name))
    has_loss = np.isin(chosen.indices, trainable(pool))
    subset, weights = chosen.indices[has_loss], chosen.weights[has_loss]
    num_lost = len(chosen.indices) - len(subset)
    if not len(subset):
        raise InputError(f"selection/{name}: none of its rows has a response within max_length.")
    matched = len(trainable(pool)) if config.target.match_by == "steps" else len(subset)
    steps = num_steps(config.target.train, matched)
    record = _record(run, name, pool, chosen)
    if record.done:
        found = integrity.damage(record.folder, stored_digests(record.folder)) if is_read else ""
        if not found:
            return
        say(f"{found}: it is exported again, from the last checkpoint if that is there")
    if num_lost:
        say(
            f"target on {name}: {num_lost} of its {len(chosen.indices)} rows have no response within "
            "tokenize.max_length, and are not trained on"
        )
    model = run.model("target")
    if not config.target.use_weights:
        weights = np.ones_like(weights)
    batches = make_batches(run, pool, subset, weights, model.trained_config, config.target.train, steps)
    num_changed = num_trained(model.trained_config)
    part = "" if model.lora is None else f" and {num_changed / 1e6:.3g}M in adapters"
    with explained(config, "target"), record.counting():
        result = train(
            model.trained_config,
            model.first_params,
            batches,
            train_settings(run, config.target.train),
            run.mesh,
            record.folder,
            label=f"target on {name}, {model.num_parameters / 1e6:.3g}M parameters{part}",
            frozen=model.frozen_params(DTYPES[config.target.train.dtype]),
            hooks=run.profilers(record.folder),
        )
    exported = export(run, model, result.params, record.folder)
    processes.barrier(f"export {name}")
    size = batches.size(steps)
    examples = steps * config.target.train.batch_size
    record.finish(
        {
            "steps": steps,
            "epochs": examples / len(subset),
            "examples_seen": examples,
            "tokens_seen": size.tokens,
            "training_flops": training_flops(model.trained_config, size),
            "parameters": model.num_parameters,
            "trained_parameters": num_changed,
            "final_loss": float(result.losses[-1]),
            "curve": loss_curve(result.losses),
            **({"num_without_loss": num_lost} if num_lost else {}),
        },
        files=[exported],
    )
