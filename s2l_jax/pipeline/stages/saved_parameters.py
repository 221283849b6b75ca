"""Stage `trajectories`, of parameters that were saved before: snapshots, or checkpoints trained elsewhere."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from etils import epath
from jax.sharding import Mesh

from s2l_jax import artifacts, records
from s2l_jax.config import deciding
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint
from s2l_jax.errors import InputError
from s2l_jax.models.checkpoint_series import (
    check_checkpoints,
    content_of,
    find_checkpoints,
    open_checkpoints,
)
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.hf import load_config
from s2l_jax.models.parameters import model_params
from s2l_jax.parallel.placement import load_model
from s2l_jax.pipeline.stages.given_costs import UNKNOWN, cost_of_snapshots
from s2l_jax.pipeline.stages.trajectories import (
    SLICE,
    SWEPT,
    store_digests,
    sweep_flops,
    sweeper_of,
    tracked_of,
    writer_of,
)
from s2l_jax.records import Record
from s2l_jax.training.models import tokenizer_place
from s2l_jax.training.run import Run
from s2l_jax.trajectories.cadence import Cadence
from s2l_jax.trajectories.snapshots import find_snapshots, load_snapshot, read_mark
from s2l_jax.trajectories.sweep import LossSweeper


@dataclasses.dataclass(frozen=True)
class _Saved:
    """Parameters at several steps of one training.

    Attributes:
      field: of the config that names them.
      folders: in Hugging Face layout, by step, in order.
      content: of a folder, hashes of its files by name.
      load: the model in one.
    """

    field: str
    folders: dict[int, epath.Path]
    content: Callable[[epath.Path], dict[str, str]]
    load: Callable[[epath.Path, Mesh], Decoder]

    def settings(self) -> dict[str, Any]:
        """What they are, as a setting of what is measured on them."""
        return {self.field: {str(step): self.content(folder) for step, folder in self.folders.items()}}


def sweep_saved(run: Run, pool: PreparedPool) -> None:
    """Sweep saved parameters over the tracked rows of the pool.

    All of them, or with cadence="list" those of the steps listed.

    Raises:
      InputError: none there, damaged ones, or snapshots of a proxy that was trained on otherwise tokenised
        rows; a workdir made with other settings, or with a proxy of its own.
    """
    _check_no_proxy(run)
    saved = _saved(run)
    tracked = tracked_of(run, pool)
    beyond = {"pool.fingerprint": pool.fingerprint} | saved.settings() | tracked.settings
    settings = deciding(run.config, "trajectories", beyond)
    record = Record(run.workdir / SWEPT, "trajectories", settings)
    if record.done:
        return
    writer = writer_of(run, tracked, "sweep", settings)
    sweeper: LossSweeper | None = None
    with record.counting():
        for step, folder in saved.folders.items():
            if step in writer.steps:
                continue
            model = saved.load(folder, run.mesh)
            sweeper = sweeper or sweeper_of(run, pool, tracked, model.config, writer)
            sweeper.at_cadence(step, model_params(model))
    model_config = load_config(artifacts.local_copy(next(iter(saved.folders.values())), ["config.json"]))
    asked = run.config.trajectories
    record.finish(
        (cost_of_snapshots(asked.snapshots) if asked.snapshots else UNKNOWN)
        | {
            "sweep_flops": len(saved.folders) * sweep_flops(run, pool, tracked, model_config),
            "refreshes": [vars(refresh) for refresh in writer.clusters.records],
        },
        digests=functools.partial(store_digests, run),
    )


def check_saved(run: Run) -> None:
    """Find now what would stop the sweep later.

    Raises:
      InputError: no such snapshots, or snapshots that do not fit the run's tokens; checkpoints that differ in
        their model, whose weights do not fit it, or with another vocabulary than the run's tokeniser.
    """
    _check_no_proxy(run)
    saved, tokenizer = _saved(run), run.tokenizer("proxy")
    if run.config.trajectories.checkpoints:
        check_checkpoints(saved.folders, tokenizer, tokenizer_place(run.config, "proxy"))
        return
    for folder in saved.folders.values():
        if read_mark(folder)["made_with"] != snapshot_settings(run):
            raise InputError(
                f"{folder}: this proxy was trained with another tokeniser or other tokenize.* "
                "fields. Set proxy.tokenizer (or proxy.checkpoint) and tokenize.* as they were then."
            )


def check_content(run: Run, pool: PreparedPool) -> None:
    """Raise an InputError if what was swept is of other parameters or rows than the config asks for."""
    _check_no_proxy(run)
    saved = _saved(run)
    content = saved.settings() | tracked_of(run, pool).settings
    records.check_content(run.workdir / SWEPT, "trajectories", content, (SLICE, saved.field))


def saved_steps(run: Run) -> list[int]:
    """The steps that their sweeps give columns of."""
    return list(_saved(run).folders)


def snapshot_settings(run: Run) -> dict[str, Any]:
    """What a snapshot and a later sweep of it must agree on: how rows become tokens."""
    tokenize = TokenizeSettings(**run.config.tokenize.to_dict())
    tokens = fingerprint("", run.tokenizer("proxy"), tokenize)
    return deciding(run.config, "snapshots", {"tokenize.fingerprint": tokens})


def _saved(run: Run) -> _Saved:
    asked = run.config.trajectories
    if asked.checkpoints:
        names = _wanted(run, find_checkpoints(asked.checkpoints), "checkpoint", ", ".join(asked.checkpoints))
        return _Saved("trajectories.checkpoints", open_checkpoints(names), content_of, _load_checkpoint)
    folders = _wanted(run, find_snapshots(asked.snapshots), "snapshot", asked.snapshots)
    return _Saved("trajectories.snapshots", folders, lambda f: read_mark(f)["sha256"], load_snapshot)


def _wanted(run: Run, found: dict[int, Any], what: str, where: str) -> dict[int, Any]:
    """Of what was found by step, what the cadence asks for."""
    asked = run.config.trajectories
    cadence = Cadence.of(asked)
    if asked.cadence == "list" and (absent := sorted(cadence.listed - found.keys())):
        raise InputError(
            f"trajectories.steps={asked.steps!r}: {where} has no {what} of step "
            f"{', '.join(map(str, absent))}; there are {', '.join(map(str, found))}."
        )
    return {step: found[step] for step in cadence.among(found)}


def _check_no_proxy(run: Run) -> None:
    if (run.workdir / "proxy" / "stage.json").exists():
        asked = "checkpoints" if run.config.trajectories.checkpoints else "snapshots"
        raise InputError(
            f"trajectories.{asked}: {run.workdir} has a proxy of its own: to sweep {asked}, use another "
            "--workdir."
        )


def _load_checkpoint(folder: epath.Path, mesh: Mesh) -> Decoder:
    return load_model(str(folder), mesh)
