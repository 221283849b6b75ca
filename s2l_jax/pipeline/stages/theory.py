"""Stage `analysis`: gradients of whole clusters as a target trains, and what they say of the theorem."""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float32, Int, Int64

from s2l_jax import integrity, records
from s2l_jax.analysis.theory import Measurements, measure_theory
from s2l_jax.config import deciding
from s2l_jax.console import duration, say
from s2l_jax.data.batching import size_of
from s2l_jax.data.order import priorities
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.features.compute.example_gradients import ExampleGradients
from s2l_jax.models.parameters import Params, joined
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel import processes
from s2l_jax.pipeline.stages import selection as selections
from s2l_jax.pipeline.stages.trajectories import packing_options
from s2l_jax.records import Record, way_out
from s2l_jax.selection import Selection
from s2l_jax.training.flops import forward_flops, training_flops
from s2l_jax.training.hooks import Hook
from s2l_jax.training.loop import train
from s2l_jax.training.out_of_memory import explained
from s2l_jax.training.run import Run, make_batches, num_steps, train_settings, trainable
from s2l_jax.trajectories.load import Trajectories
from s2l_jax.trajectories.packed_dataset import PackedDataset
from s2l_jax.trajectories.sweep import make_sweep

FOLDER = "theory"
_AT_ONCE = 256  # rows whose gradients are taken between signs of life


def check_content(run: Run) -> None:
    """Raise an InputError if the theorem was measured on another subset than the run that is named has."""
    if not run.config.analysis.theory:
        return
    if (selections.folder(run, run.config.analysis.run) / "summary.json").exists():
        records.check_content(run.workdir / FOLDER, FOLDER, _content(_chosen(run)))


def measure(run: Run, pool: PreparedPool, contexts: selections.Contexts) -> None:
    """Train a target on the whole pool, take gradients on the way, and judge a selection's clusters by them.

    Raises:
      InputError: the selection has no clusters or no trajectories, or no two clusters fit into analysis.rows.
      DivergedError: training, a loss or a gradient is not finite.
    """
    chosen, name = _chosen(run), run.config.analysis.run
    losses, rows_of_losses = selections.losses_of(run, contexts, name)
    beyond = {"pool.fingerprint": pool.fingerprint, "trajectories.sha256": losses.digest}
    beyond |= run.model_content("target") | _content(chosen)
    replicate = run.of_seed(chosen.seed)
    record = Record(run.workdir / FOLDER, FOLDER, deciding(replicate.config, FOLDER, beyond))
    if record.done:
        return
    places = np.arange(len(losses.losses)) if rows_of_losses is None else rows_of_losses
    rows = whole_clusters(
        chosen.labels, np.intersect1d(trainable(pool), places), run.config.analysis.rows, chosen.seed
    )
    taken = np.zeros(len(chosen.labels), bool)
    taken[chosen.indices] = True
    with record.counting():
        at_gradients, at_losses, work = _train(replicate, pool, rows, losses, record.folder)
    sources = np.zeros(len(rows), np.int64)
    if chosen.cluster_sources is not None and chosen.sources is not None:
        sources = np.unique(np.asarray(chosen.sources)[rows], return_inverse=True)[1]
    results: dict[str, Any] = {}
    if processes.is_writer():
        found = Measurements(
            losses.losses[places_of(rows, places)],
            at_losses,
            at_gradients,
            chosen.labels[rows],
            sources,
            taken[rows],
        )
        results = {"run": name, "dims": run.config.analysis.dims, **measure_theory(found), **work}
        integrity.write_npz(record.folder / "rows.npz", {"rows": rows, "labels": chosen.labels[rows]})
    say(f"theory: measured on {len(rows)} rows of {len(np.unique(chosen.labels[rows]))} clusters of {name}")
    record.finish(results)


def whole_clusters(
    labels: Int[np.ndarray, " n"], usable: Int64[np.ndarray, " m"], most: int, seed: int
) -> Int64[np.ndarray, " s"]:
    """The usable rows of clusters that are drawn whole, one after the other, as far as they fit into `most`.

    Raises:
      InputError: fewer than two clusters fit.
    """
    usable = usable[labels[usable] >= 0]
    names, codes, sizes = np.unique(labels[usable], return_inverse=True, return_counts=True)
    left, kept = most or len(usable), np.zeros(len(names), bool)
    for cluster in np.argsort(priorities(names.astype(np.uint64), seed), kind="stable"):
        kept[cluster] = sizes[cluster] <= left
        left -= sizes[cluster] * kept[cluster]
    if kept.sum() < 2:
        raise InputError(
            f"analysis.rows={most}: whole clusters are measured, and no two of the {len(names)} that there "
            "are fit: raise it, or name a run with more clusters (analysis.run)."
        )
    return usable[kept[codes]]


def places_of(rows: Int64[np.ndarray, " s"], tracked: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " s"]:
    """Where among the tracked rows, in any order, each of some of them is."""
    order = np.argsort(tracked, kind="stable")
    return order[np.searchsorted(tracked[order], rows)]


class GradientSampler(Hook):
    """Takes losses and, at some of its steps, gradients of some rows as a model trains; a file for each step.

    Args:
      files: by the step.
      losses: (parameters) -> those of the rows.
      gradients: the same; and the steps at which they are taken.
    """

    def __init__(
        self,
        files: Mapping[int, epath.Path],
        losses: Callable[[Params], Float32[np.ndarray, " s"]],
        gradients: Callable[[Params], Float32[np.ndarray, "s p"]],
        steps: frozenset[int],
    ):
        self._files, self._losses, self._gradients, self._steps = files, losses, gradients, steps

    def is_due(self, step: int) -> bool:
        return step in self._files

    def at_cadence(self, step: int, params: Params) -> None:
        file, start = self._files[step], time.monotonic()
        there = processes.of_writer(processes.is_writer() and file.exists())
        if there:
            return
        found = {"losses": self._losses(params)}
        if step in self._steps:
            found["gradients"] = self._gradients(params)
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise DivergedError(f"{file}: {name} that are not finite; use analysis.dtype=float32")
        if processes.is_writer():
            integrity.write_npz(file, found)
        processes.barrier(f"theory {step}")
        if step in self._steps:
            say(f"  gradients of {len(values)} rows at step {step} ({duration(time.monotonic() - start)})")


def _train(
    run: Run, pool: PreparedPool, rows: Int64[np.ndarray, " s"], losses: Trajectories, folder: epath.Path
) -> tuple[dict[int, Float32[np.ndarray, "s p"]], Float32[np.ndarray, "s t"], dict[str, Any]]:
    """Gradients by step, the losses at points like the proxy's, and the work that took.

    The target is trained on the whole pool, as a run of method full does; nothing of it is kept but these.
    """
    config, model, subset = run.config, run.model("target"), trainable(pool)
    settings, asked = config.target.train, config.analysis
    steps = num_steps(settings, len(subset))
    last = max(1, int(losses.steps[-1]))
    like_proxy = [round(steps * step / last) for step in losses.steps.tolist()]
    sampled = sorted({round(steps * n / (asked.checkpoints - 1)) for n in range(asked.checkpoints)})
    files = {step: folder / f"step_{step:08d}.npz" for step in sorted({*like_proxy, *sampled})}
    batches = make_batches(
        run, pool, subset, np.ones(len(subset), np.float32), model.trained_config, settings, steps
    )
    if not processes.of_writer(processes.is_writer() and all(file.exists() for file in files.values())):
        frozen = model.frozen_params(DTYPES[settings.dtype])
        sampler = GradientSampler(
            files,
            _losses(run, pool, rows, frozen),
            _gradients(run, pool, rows, frozen),
            frozenset(sampled),
        )
        with explained(config, "theory"):
            train(
                model.trained_config,
                model.first_params,
                batches,
                train_settings(run, settings),
                run.mesh,
                folder / "target",
                label=f"target for the theorem, {model.num_parameters / 1e6:.3g}M parameters",
                frozen=frozen,
                hooks=[sampler],
            )
    if absent := [file for file in files.values() if not file.exists()]:
        raise InputError(f"{absent[0]} is gone, which was measured: {way_out(folder)}.")
    if processes.is_writer():
        (folder / "target").rmtree(missing_ok=True)
    found = {step: _read(file, folder) for step, file in files.items()}
    own = model.trained_config
    size, pool_size = size_of(pool, rows), batches.size(steps)
    work = {
        "steps": steps,
        "training_flops": training_flops(own, pool_size),
        "gradient_flops": len(sampled) * training_flops(own, size),
        "sweep_flops": len(files) * forward_flops(own, size),
    }
    gradients = {step: found[step]["gradients"] for step in sampled}
    return gradients, np.stack([found[step]["losses"] for step in like_proxy], axis=1), work


def _losses(
    run: Run, pool: PreparedPool, rows: Int64[np.ndarray, " s"], frozen: Params | None
) -> Callable[[Params], Float32[np.ndarray, " s"]]:
    config, model = run.config, run.model("target").trained_config
    dataset = PackedDataset(pool, rows, run.mesh, **packing_options(config, model))
    dtype = DTYPES[config.analysis.dtype]
    sweep = make_sweep(model, dataset, run.mesh, dtype=dtype, attention=config.attention)
    return lambda params: np.asarray(jax.block_until_ready(sweep(joined(frozen, params))))


def _gradients(
    run: Run, pool: PreparedPool, rows: Int64[np.ndarray, " s"], frozen: Params | None
) -> Callable[[Params], Float32[np.ndarray, "s p"]]:
    asked = run.config.analysis
    sweep = ExampleGradients(
        run.model("target").trained_config,
        run.mesh,
        dims=asked.dims,
        seed=run.config.seed,
        batch_tokens=asked.batch_tokens,
        dtype=DTYPES[asked.dtype],
    )
    parts = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
    return lambda params: np.concatenate([sweep.of(frozen, params, pool, part) for part in parts])


def _read(file: epath.Path, folder: epath.Path) -> dict[str, np.ndarray]:
    try:
        return integrity.read_npz(file)
    except InputError as error:
        raise InputError(f"{error} {way_out(folder).capitalize()}.") from error


def _chosen(run: Run) -> Selection:
    """The selection whose clusters are judged."""
    name = run.config.analysis.run
    chosen = Selection.load(selections.folder(run, name))
    if not len(chosen.centroids):
        raise InputError(
            f"analysis.run={name!r}: it has no clusters to judge; name a run of a method that makes some."
        )
    return chosen


def _content(chosen: Selection) -> dict[str, str]:
    arrays = (np.asarray(x, np.int64) for x in (chosen.indices, chosen.labels))
    return {"selection.clusters": hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()}
