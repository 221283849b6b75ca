"""Proxy and target as the config names them: settings, weights, tokeniser, and export."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from s2l_jax import artifacts
from s2l_jax.config.rules import PROJECTIONS
from s2l_jax.errors import InputError
from s2l_jax.models import hf, weights
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.lora import Lora, available, merge
from s2l_jax.models.parameters import Params, bind, model_params, num_parameters
from s2l_jax.models.peft import load_adapter, save_adapter
from s2l_jax.parallel.placement import load_model, put_adapters, random_adapters, random_params
from s2l_jax.pipeline.stages.pool import tokenizer_of
from s2l_jax.training.run import Run, check_batch

WHOLE, ADAPTER = "hf", "adapter"  # folders of what training made


@dataclasses.dataclass(frozen=True)
class Model:
    """A model before training."""

    config: DecoderConfig
    hf_config: dict[str, Any]
    initial_params: Callable[..., Params]  # on the mesh, in the dtype given, or float32
    tokenizer: Any
    num_parameters: int
    directory: epath.Path | None  # where it came from; None for one that starts at random
    lora: Lora | None = None  # the adapters that are trained instead, if that is asked for

    @property
    def trained_config(self) -> DecoderConfig:
        """The decoder that training sees: with adapters where they are asked for."""
        return dataclasses.replace(self.config, lora=self.lora)


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
    directory = hf.resolve(settings.checkpoint) if settings.checkpoint else None
    place = settings.model_config or directory
    hf_config = hf.read_config(place)
    config = hf.load_config(place)
    tokenizer = tokenizer_of(settings)
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"{what}: the tokeniser has {len(tokenizer)} tokens, the model's vocabulary is "
            f"{config.vocab_size} ({place}): they do not belong together."
        )

    def initial(dtype: Any = jnp.float32) -> Params:
        if settings.init == "random":
            params = random_params(config, run.mesh, jax.random.key(run.config.seed))
            return jax.tree.map(lambda p: p.astype(dtype), params)
        return model_params(load_model(settings.checkpoint, run.mesh, dtype))

    lora = _lora(run, config) if what == "target" else None
    return Model(config, hf_config, initial, tokenizer, num_parameters(config), directory, lora)


def _lora(run: Run, config: DecoderConfig) -> Lora | None:
    settings: ConfigDict = run.config.target.lora
    if not settings.rank:
        return None
    known = available(config.gated_mlp)
    asked = known if settings.projections == "all" else settings.projections.replace(" ", "").split(",")
    if lacking := [name for name in asked if name not in known]:
        raise InputError(
            f"target.lora.projections: a {config.family} model has no {', '.join(lacking)}; it has "
            f"{', '.join(known)}."
        )
    names = tuple(name for name in PROJECTIONS if name in asked)
    return Lora(settings.rank, settings.alpha, names, settings.dropout, run.config.seed)


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
        weights.check_weights(hf.resolve(settings.checkpoint), model.config)


def bound(model: Model, dtype: Any) -> Any:
    """The model with its initial weights, in `dtype`."""
    return bind(model.config, model.initial_params(dtype))


def first_params(run: Run, model: Model) -> Callable[[], Params]:
    """Gives what training starts from: the weights, or with LoRA fresh adapters."""
    if model.lora is None:
        return model.initial_params
    key = jax.random.fold_in(jax.random.key(run.config.seed), 1)  # not that of random weights
    return lambda: random_adapters(model.trained_config, run.mesh, key)


def export(run: Run, model: Model, params: Params, folder: epath.Path) -> None:
    """Write what training made: a directory that transformers loads, or an adapter that PEFT loads."""
    settings: ConfigDict = run.config.target
    dtype = weights.DTYPES[settings.export_dtype]
    if model.lora is not None and settings.lora.export == "adapter":
        save_adapter(
            folder / ADAPTER,
            params,
            model.trained_config,
            base=settings.checkpoint,
            dtype=dtype,
            tokenizer=model.tokenizer,
        )
        return
    if model.lora is not None:
        params = merge(model.initial_params(), params, model.lora)
    hf.save_model(
        folder / WHOLE,
        params,
        model.config,
        model.hf_config,
        dtype=dtype,
        tokenizer=model.tokenizer,
        source=model.directory,
    )


def load_export(run: Run, folder: epath.Path, dtype: Any) -> tuple[Decoder, Any]:
    """The model, in `dtype`, and tokeniser that `export` wrote."""
    settings: ConfigDict = run.config.target
    if not settings.lora.rank or settings.lora.export == "merged":
        with artifacts.reading_folder(folder / WHOLE) as path:
            return load_model(str(path), run.mesh, dtype), hf.load_tokenizer(path)
    model = open_model(run, "target")
    assert model.lora is not None
    with artifacts.reading_folder(folder / ADAPTER) as path:
        adapters = load_adapter(path, model.trained_config)
        tokenizer = hf.load_tokenizer(path)
    adapters = put_adapters(model.trained_config, run.mesh, adapters)
    params = merge(model.initial_params(), adapters, model.lora)
    return bind(model.config, jax.tree.map(lambda p: p.astype(dtype), params)), tokenizer
