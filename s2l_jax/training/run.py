"""What all stages share: the config, the workdir, the mesh, and settings made from them."""

import dataclasses
import math

import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from s2l_jax.data.batching import Batches
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import attend, shares_prefix
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import local_groups
from s2l_jax.training.loop import TrainSettings
from s2l_jax.training.optimizer import OptimizerSettings


@dataclasses.dataclass(frozen=True)
class Run:
    """One sitting of an experiment."""

    config: ConfigDict
    workdir: epath.Path
    mesh: Mesh


def train_settings(run: Run, train: ConfigDict) -> TrainSettings:
    """The loop's settings from a `train` group of the config."""
    optimizer = {f.name: train[f.name] for f in dataclasses.fields(OptimizerSettings)}
    names = {f.name for f in dataclasses.fields(TrainSettings)} - {"optimizer", "attention"}
    return TrainSettings(
        OptimizerSettings(**optimizer),
        attention=run.config.attention,
        **{name: train[name] for name in names},
    )


def num_steps(train: ConfigDict, num_examples: int) -> int:
    """Optimiser steps: as set, or epochs x examples / batch rounded up."""
    return train.steps or math.ceil(train.epochs * num_examples / train.batch_size)


def trainable(pool: PreparedPool) -> np.ndarray:
    """Pool rows that have a response token to learn from, int64."""
    return np.flatnonzero(np.asarray(pool.lengths) > np.maximum(pool.prompt_lengths, 1))


def check_batch(run: Run, train: ConfigDict, what: str) -> None:
    """Check that a step's examples divide over accumulation and mesh.

    Raises:
      InputError: they do not.
    """
    groups = row_groups(run.mesh)
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
