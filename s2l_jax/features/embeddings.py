"""Embeddings by a target that is trained between rounds of choosing, as DiverseEvol asks for them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64
from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding
from s2l_jax.config.inputs import of_seed
from s2l_jax.errors import InputError
from s2l_jax.features.arrays import function
from s2l_jax.features.compute.state_settings import StateSettings
from s2l_jax.features.feature import FEATURES, SelectionContext
from s2l_jax.features.hidden_states import HiddenStates, model_states
from s2l_jax.features.tuned_weights import UNTUNED

if TYPE_CHECKING:
    from s2l_jax.data.prepared import PreparedPool
    from s2l_jax.models.parameters import Params
    from s2l_jax.training.run import Run


class Embeddings(HiddenStates):
    """`embed`, a function from the rows chosen so far to hidden states of the pool; with one round these."""

    arrays: ClassVar = {"embed": function()}
    splits = False

    def is_in(self, inputs: Any) -> bool:
        return inputs.embed is not None or inputs.hidden_states is not None

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        super().check(run, name, options)
        if _rounds(options) > 1 and run.config.selection.states.model != "target":
            raise InputError(
                f"selection.runs.{name}.rounds={_rounds(options)}: it is the target that is trained between "
                "rounds; set selection.states.model='target'."
            )
        if _rounds(options) > 1 and options["checkpoint"] != UNTUNED:
            raise InputError(
                f"selection.runs.{name}.checkpoint={options['checkpoint']!r}: with rounds={_rounds(options)} "
                "each trains a fresh target; leave one of the two out."
            )

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        own = super().settings(config, options)
        return own | deciding(of_seed(config, options["seed"]), "target") if _rounds(options) > 1 else own

    def part(self, config: ConfigDict, options: dict[str, Any]) -> str:
        return "" if _rounds(options) > 1 else super().part(config, options)  # rounds are of use to it alone

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        """With rounds, nothing is made before the method asks.

        A fresh target is trained as `target.train` says (by its steps, or its epochs of these rows). The
        rounds of an interrupted run are gone through again: their training goes on from its checkpoints,
        and is passed over where it was finished.
        """
        from s2l_jax.parallel import processes

        if _rounds(options) == 1:
            return super().make(context, options, folder)
        run, pool, rounds = context.run.of_seed(options["seed"]), context.pools["target"], itertools.count(1)

        def embed(rows: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "n d"]:
            config = run.model("target").trained_config
            # All processes train on the same rows, also where machines round differently.
            rows = processes.rows_of_writer(rows)
            params = _trained(run, pool, rows, folder / "rounds" / str(next(rounds)))
            chunks = model_states(run, config, params, pool, StateSettings.of(options))
            return np.concatenate([chunk for _, chunk in chunks])

        return {"embed": embed}


def _rounds(options: dict[str, Any]) -> int:
    """How often a target is trained; once for methods that have no rounds: not at all, but as it came."""
    return options.get("rounds", 1)


def _trained(run: Run, pool: PreparedPool, rows: Int64[np.ndarray, " b"], folder: epath.Path) -> Params:
    """All parameters of a target trained on some rows."""
    from s2l_jax.models.parameters import joined
    from s2l_jax.models.weights import DTYPES
    from s2l_jax.training.loop import train
    from s2l_jax.training.run import make_batches, num_steps, train_settings, trainable

    settings: Any = run.config.target.train
    model = run.model("target")
    subset = np.intersect1d(rows, trainable(pool))
    steps, weights = num_steps(settings, len(subset)), np.ones(len(subset), np.float32)
    frozen = model.frozen_params(DTYPES[settings.dtype])
    result = train(
        model.trained_config,
        model.first_params,
        make_batches(run, pool, subset, weights, model.trained_config, settings, steps),
        train_settings(run, settings),
        run.mesh,
        folder,
        label=f"round {folder.name}, a target on {len(subset)} rows",
        frozen=frozen,
    )
    return joined(frozen, result.params)


FEATURES.enter("embeddings", Embeddings())
