"""What all stages share: the config, the workdir, the mesh, and settings made from them."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from s2l_jax.config.inputs import Inputs, of_seed
from s2l_jax.data.batching import Batches, loss_token_counts
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.models import hf, weights
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import attend, shares_prefix
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import local_groups
from s2l_jax.training.hooks import Hook
from s2l_jax.training.loop import TrainSettings
from s2l_jax.training.models import Model, content_of, open_model, open_tokenizer
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.profiler import Profiler, Steps


class Run:
    """One sitting of an experiment; each model and tokeniser is opened when it is first asked for.

    `profile` names the steps of each training run that are traced; `parts` the parts of the workdir that are
    made where others are being made by other processes (see `pipeline.members`), or is empty.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: epath.Path,
        mesh: Mesh,
        profile: Steps | None = None,
        parts: Sequence[str] = (),
    ):
        self.config, self.workdir, self.mesh, self._profile = config, workdir, mesh, profile
        self._parts = parts
        self._proxy = ""  # in `proxies`: what "proxy" is
        self._tokenizers: dict[str, Any] = {}
        self._models: dict[str, Model] = {}
        self._contents: dict[str, dict[str, str]] = {}

    def makes(self, part: str) -> bool:
        """Whether a part of the workdir is this sitting's to make."""
        return not self._parts or any(f"{part}/".startswith(f"{own}/") for own in self._parts)

    def profilers(self, folder: epath.Path) -> list[Hook]:
        """The hook that traces a training run in `folder`, if that is asked for."""
        return [] if self._profile is None else [Profiler(folder, self._profile)]

    def tokenizer(self, what: str) -> Any:
        """The tokeniser of the "proxy" or "target"."""
        if (key := self.key_of(what)) not in self._tokenizers:
            self._tokenizers[key] = open_tokenizer(self.config, what)
        return self._tokenizers[key]

    def model(self, what: str) -> Model:
        """The "proxy" or "target", as `models.open_model` opens it."""
        if (key := self.key_of(what)) not in self._models:
            self._models[key] = open_model(self.config, self.mesh, what, self.tokenizer(what))
        return self._models[key].of_seed(self.config.seed)

    def of_seed(self, seed: int) -> "Run":
        """This run for a replicate: all that `seed` decides is by another one."""
        if seed == self.config.seed:
            return self
        other = copy.copy(self)
        other.config = of_seed(self.config, seed)
        return other

    def inputs_of(self, inputs: Inputs) -> "Run":
        """The run that makes what selections go by, with another proxy or seed in its own folder."""
        if not (folder := inputs.folder(self.config)):
            return self
        other = copy.copy(self)
        other.config, other.workdir = inputs.config(self.config), self.workdir / folder
        other._proxy = inputs.proxy
        return other

    def model_content(self, what: str) -> dict[str, Any]:
        """The content of the files of the "proxy" or "target", as a setting of what is made with it."""
        if (key := self.key_of(what)) not in self._contents:
            self._contents[key] = content_of(self.config, what)
        return {f"{what}.files": self._contents[key]}

    def key_of(self, what: str) -> str:
        """Names the "proxy" or "target" of this run among those of runs with other proxies (`inputs_of`)."""
        return Inputs(self._proxy, self.config.seed).model if what == "proxy" else what


def train_settings(run: Run, train: ConfigDict) -> TrainSettings:
    """The loop's settings from a `train` group of the config."""
    optimizer = {f.name: train[f.name] for f in dataclasses.fields(OptimizerSettings)}
    of_run = {"attention": run.config.attention, "wandb": run.config.wandb}
    names = {f.name for f in dataclasses.fields(TrainSettings)} - {"optimizer", *of_run}
    others = {name: train[name] for name in names}
    return TrainSettings(OptimizerSettings(**optimizer), **of_run, **others)


def num_steps(train: ConfigDict, num_examples: int) -> int:
    """Optimiser steps: as set, or epochs x examples / batch rounded up."""
    return train.steps or math.ceil(train.epochs * num_examples / train.batch_size)


def trainable(pool: PreparedPool) -> np.ndarray:
    """Pool rows that have a response token to learn from, int64."""
    return np.flatnonzero(loss_token_counts(pool, np.arange(len(pool.lengths))))


def check_model(run: Run, what: str) -> None:
    """Find now what would stop the proxy or target later: its files, and how its batch divides.

    Raises:
      InputError: see `models.open_model`; or a step's examples do not divide over accumulation and mesh.
    """
    settings: ConfigDict = run.config[what]
    check_batch(run, what)
    model = run.model(what)
    if run.config.tokenize.max_length > model.config.max_positions:
        raise InputError(
            f"tokenize.max_length={run.config.tokenize.max_length} is above the {what}'s context of "
            f"{model.config.max_positions} tokens."
        )
    if settings.init == "pretrained":
        weights.check_weights(hf.resolve(settings.checkpoint), model.config)


def check_batch(run: Run, what: str) -> None:
    """Raise an InputError if a step's examples do not divide over accumulation and mesh."""
    groups, train = row_groups(run.mesh), run.config[what].train
    if train.batch_size % (groups * train.accumulation):
        raise InputError(
            f"{what}.train.batch_size={train.batch_size} does not divide by mesh.data x mesh.fsdp x "
            f"{what}.train.accumulation = {groups} x {train.accumulation}."
        )


def make_batches(
    run: Run,
    pool: PreparedPool,
    subset: np.ndarray,
    weights: np.ndarray,
    model: DecoderConfig,
    train: ConfigDict,
    steps: int,
) -> Batches:
    """The batches of a proxy or target run; see `Batches`."""
    attention = attention_on(run.mesh, model, DTYPES[train.dtype], run.config.attention)
    dropout = model.lora is not None and model.lora.dropout > 0
    # Kernels merge what comes first by sums that they give no gradient of; dropout differs by example.
    shared = attention is attend and not dropout and shares_prefix(model, run.config.tokenize.max_length)
    return Batches(
        pool,
        subset,
        weights,
        batch_size=train.batch_size,
        num_steps=steps,
        seed=run.config.seed,
        max_length=run.config.tokenize.max_length,
        microbatches=train.accumulation,
        groups=row_groups(run.mesh),
        local_groups=local_groups(run.mesh),
        pack=train.pack,
        name_examples=dropout,
        share_prefix=shared,
    )
