"""Proxy and target as the config names them: settings, weights and tokeniser."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from s2l_jax.config import PROJECTIONS
from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.checkpoint_series import find_checkpoints
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.lora import Lora, available
from s2l_jax.models.parameters import Params, bind, model_params, num_parameters
from s2l_jax.models.weight_files import identity
from s2l_jax.parallel.placement import load_model, random_adapters, random_params


@dataclasses.dataclass(frozen=True)
class Model:
    """A model before training; its weights are read whenever they are asked for, and not kept."""

    config: DecoderConfig
    hf_config: dict[str, Any]
    tokenizer: Any
    directory: epath.Path | None  # where its config came from, if from a checkpoint
    mesh: Mesh
    seed: int  # of random weights and adapters
    starts_at_random: bool
    lora: Lora | None = None  # the adapters that are trained instead, if that is asked for

    def of_seed(self, seed: int) -> "Model":
        """The same with random weights and adapters, where it has any, of another seed."""
        lora = None if self.lora is None else dataclasses.replace(self.lora, seed=seed)
        return self if seed == self.seed else dataclasses.replace(self, seed=seed, lora=lora)

    @property
    def trained_config(self) -> DecoderConfig:
        """The decoder that training sees: with adapters where they are asked for."""
        return dataclasses.replace(self.config, lora=self.lora)

    @property
    def num_parameters(self) -> int:
        """Of the whole model, adapters not counted."""
        return num_parameters(self.config)

    def initial_params(self, dtype: Any = jnp.float32) -> Params:
        """The weights before training, on the mesh."""
        if self.starts_at_random:
            params = random_params(self.config, self.mesh, jax.random.key(self.seed))
            return jax.tree.map(lambda p: p.astype(dtype), params)
        return model_params(load_model(str(self.directory), self.mesh, dtype))

    def first_params(self) -> Params:
        """What training starts from: the weights, or with LoRA fresh adapters."""
        if self.lora is None:
            return self.initial_params()
        key = jax.random.fold_in(jax.random.key(self.seed), 1)  # not that of random weights
        return random_adapters(self.trained_config, self.mesh, key)

    def frozen_params(self, dtype: Any) -> Params | None:
        """What training leaves as it is, in its dtype: with LoRA the weights, else nothing."""
        return None if self.lora is None else self.initial_params(dtype)

    def bound(self, dtype: Any) -> Decoder:
        """The model with its initial weights."""
        return bind(self.config, self.initial_params(dtype))


def content_of(config: ConfigDict, what: str) -> dict[str, str]:
    """Hashes, by name, of the "proxy"'s or "target"'s config.json and, if it starts from them, its weights.

    Those of weights are of `weight_files.identity`; times and places of files are no part of them. Nothing of
    a model that the config does not name.
    """
    settings: ConfigDict = config[what]
    directory = hf.resolve(settings.checkpoint) if settings.checkpoint else None
    place = settings.model_config or directory
    if not place:
        return {}
    content = {"config.json": hf.config_digest(place)}
    return content if directory is None or settings.init == "random" else content | identity(directory)


def open_tokenizer(config: ConfigDict, what: str) -> Any:
    """The tokeniser of the "proxy" or "target".

    Raises:
      InputError: none is named, or it cannot be read.
    """
    if not (place := tokenizer_place(config, what)):
        raise InputError(
            f"{what}.checkpoint is empty: give a directory in Hugging Face layout or a hub id, or "
            f"{what}.tokenizer with {what}.init='random' and {what}.model_config."
        )
    return hf.load_tokenizer(hf.resolve(place, with_weights=False))


def tokenizer_place(config: ConfigDict, what: str) -> str:
    """Where the tokeniser of the "proxy" or "target" is; "" for nowhere.

    A proxy that was trained elsewhere, and is not named, has that of its first checkpoint.
    """
    settings: ConfigDict = config[what]
    if (named := settings.tokenizer or settings.checkpoint) or what != "proxy":
        return named
    return next(iter(find_checkpoints(config.trajectories.checkpoints).values()), "")


def open_model(config: ConfigDict, mesh: Mesh, what: str, tokenizer: Any) -> Model:
    """The proxy or target of a config, with its tokeniser.

    Raises:
      InputError: no checkpoint named, weights missing or unfit, or a tokeniser too large for it.
    """
    settings: ConfigDict = config[what]
    _check_named(settings, what)
    directory = hf.resolve(settings.checkpoint) if settings.checkpoint else None
    place = settings.model_config or directory
    decoder = hf.load_config(place)
    if len(tokenizer) > decoder.vocab_size:
        raise InputError(
            f"{what}: the tokeniser has {len(tokenizer)} tokens, the model's vocabulary is "
            f"{decoder.vocab_size} ({place}): they do not belong together."
        )
    lora = _lora(config, decoder, what)
    at_random = settings.init == "random"
    return Model(decoder, hf.read_config(place), tokenizer, directory, mesh, config.seed, at_random, lora)


def trained_config(config: ConfigDict, what: str) -> DecoderConfig:
    """The decoder that training the "proxy" or "target" sees; its config.json is enough.

    Raises:
      InputError: no config.json is named, or what it describes is not supported.
    """
    settings: ConfigDict = config[what]
    _check_named(settings, what)
    decoder = hf.load_config(settings.model_config or hf.resolve(settings.checkpoint, with_weights=False))
    return dataclasses.replace(decoder, lora=_lora(config, decoder, what))


def _check_named(settings: ConfigDict, what: str) -> None:
    if not (settings.checkpoint or settings.model_config):
        raise InputError(
            f"{what}.checkpoint is empty: give a directory in Hugging Face layout or a hub id, or "
            f"{what}.init='random' with {what}.model_config."
        )


def _lora(config: ConfigDict, decoder: DecoderConfig, what: str) -> Lora | None:
    if what != "target" or not config.target.lora.rank:
        return None
    settings: ConfigDict = config.target.lora
    known = available(decoder.gated_mlp)
    asked = known if settings.projections == ("all",) else settings.projections
    if lacking := [name for name in asked if name not in known]:
        raise InputError(
            f"target.lora.projections: a {decoder.family} model has no {', '.join(lacking)}; it has "
            f"{', '.join(known)}."
        )
    names = tuple(name for name in PROJECTIONS if name in asked)
    return Lora(settings.rank, settings.alpha, names, settings.dropout, config.seed)
