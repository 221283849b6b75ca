"""DiverseEvol's rounds: the target is trained on what is chosen, and more is chosen by its embeddings."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64

from s2l_jax.data.prepared import PreparedPool
from s2l_jax.features.pooled_states import StateSettings, hidden_states
from s2l_jax.models.parameters import Params, joined
from s2l_jax.models.weights import DTYPES
from s2l_jax.training.loop import train
from s2l_jax.training.models import Model
from s2l_jax.training.run import Run, make_batches, num_steps, train_settings, trainable


def embeddings(
    run: Run, pool: PreparedPool, folder: epath.Path, states: StateSettings
) -> Callable[[Int64[np.ndarray, " b"]], Float32[np.ndarray, "n d"]]:
    """What DiverseEvol asks in each round: the pool, embedded by a target trained on the rows so far.

    A fresh target is trained as `target.train` says (by its steps, or its epochs of these rows). The
    rounds of an interrupted run are gone through again: their training goes on from its checkpoints,
    and is passed over where it was finished.

    Args:
      run: the run.
      pool: as the target tokenises it.
      folder: where each round's training is kept.
      states: which hidden states are the embeddings.
    """
    rounds = itertools.count(1)

    def embed(rows: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "n d"]:
        model = run.model("target")
        params = _trained(run, model, pool, rows, folder / str(next(rounds)))
        return np.concatenate([part for _, part in _states(run, model, params, pool, states)])

    return embed


def _trained(
    run: Run, model: Model, pool: PreparedPool, rows: Int64[np.ndarray, " b"], folder: epath.Path
) -> Params:
    """All parameters of a target trained on some rows."""
    settings: Any = run.config.target.train
    subset = np.intersect1d(rows, trainable(pool))
    frozen = model.frozen_params(DTYPES[settings.dtype])
    result = train(
        model.trained_config,
        model.first_params,
        make_batches(
            run,
            pool,
            subset,
            np.ones(len(subset), np.float32),
            model.trained_config,
            settings,
            num_steps(settings, len(subset)),
        ),
        train_settings(run, settings),
        run.mesh,
        folder,
        label=f"round {folder.name}, a target on {len(subset)} rows",
        frozen=frozen,
    )
    return joined(frozen, result.params)


def _states(run: Run, model: Model, params: Params, pool: PreparedPool, states: StateSettings) -> Any:
    asked = run.config.selection.states
    return hidden_states(
        model.trained_config,
        params,
        pool,
        run.mesh,
        states,
        max_length=run.config.tokenize.max_length,
        batch_tokens=asked.batch_tokens,
        dtype=DTYPES[asked.dtype],
        attention=run.config.attention,
    )
