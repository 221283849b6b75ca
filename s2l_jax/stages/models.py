"""Proxy and target as the config names them: settings, weights, tokeniser, and export."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.models.decoder import DecoderConfig, Params, bind, model_params, parameter_shapes
from s2l_jax.parallel.placement import load_model, random_params
from s2l_jax.stages.pool import tokenizer_of
from s2l_jax.stages.run import Run, check_batch


@dataclasses.dataclass(frozen=True)
class Model:
    """A model before training."""

    config: DecoderConfig
    hf_config: dict[str, Any]
    initial_params: Callable[[], Params]  # float32, on the mesh
    tokenizer: Any
    num_parameters: int


def open_model(run: Run, what: str) -> Model:
    """The proxy or target of a run.

    Raises:
      InputError: no checkpoint named, weights missing or unfit, or a tokeniser too large for it.
    """
    settings: ConfigDict = run.config[what]
    if not (settings.checkpoint or settings.model_config):
        raise InputError(
            f"{what}.checkpoint is empty: give a directory in Hugging Face layout or a hub id, or "
            f"{what}.init='random' with {what}.model_config."
        )
    place = settings.model_config or hf.resolve(settings.checkpoint)
    hf_config = hf.read_config(place)
    config = hf.load_config(place)
    tokenizer = tokenizer_of(settings)
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"{what}: the tokeniser has {len(tokenizer)} tokens, the model's vocabulary is "
            f"{config.vocab_size} ({place}): they do not belong together."
        )

    def initial() -> Params:
        if settings.init == "random":
            return random_params(config, run.mesh, jax.random.key(run.config.seed))
        model = load_model(settings.checkpoint, run.mesh, jnp.float32)
        return model_params(model)

    count = sum(int(jnp.prod(jnp.array(s))) for s in parameter_shapes(config).values())
    return Model(config, hf_config, initial, tokenizer, count)


def check_model(run: Run, what: str) -> None:
    """Find now what would stop the proxy or target later: its files, and how its batch divides.

    Raises:
      InputError: see `open_model` and `run.check_batch`.
    """
    settings: ConfigDict = run.config[what]
    check_batch(run, settings.train, what)
    model = open_model(run, what)
    if run.config.tokenize.max_length > model.config.max_positions:
        raise InputError(
            f"tokenize.max_length={run.config.tokenize.max_length} is above the {what}'s context of "
            f"{model.config.max_positions} tokens."
        )
    if settings.init == "pretrained":
        hf.check_weights(hf.resolve(settings.checkpoint), model.config)


def bound(model: Model) -> Any:
    """The model with its initial weights."""
    return bind(model.config, model.initial_params())


def export(model: Model, params: Params, path: epath.Path, dtype: str) -> None:
    """Write a directory that transformers loads."""
    hf.save_model(
        path,
        params,
        model.config,
        model.hf_config,
        dtype=hf.DTYPES[dtype],
        tokenizer=model.tokenizer,
    )
