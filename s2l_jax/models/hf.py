"""Models in Hugging Face layout: config.json, safetensors and tokeniser, in and out."""

import hashlib
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.families import FAMILIES, decoder_config
from s2l_jax.models.parameters import Params
from s2l_jax.models.weight_files import EXPLICIT
from s2l_jax.models.weights import save_params

GENERATION = "generation_config.json"
_BESIDE_WEIGHTS = ["*.json", "*.model", "*.txt", "*.jinja"]
_FILES = [*_BESIDE_WEIGHTS, "*.safetensors"]  # what a model is loaded from


def resolve(checkpoint: str, *, with_weights: bool = True) -> epath.Path:
    """The local directory of a checkpoint: config, tokeniser and, unless they are not asked for, safetensors.

    A hub id (owner/name, or owner/name@revision) is downloaded; a directory on an object store is copied
    until this process ends.

    Raises:
      InputError: neither a directory nor a hub repository that can be reached.
    """
    if not checkpoint:
        raise InputError("no checkpoint or tokeniser is named: set `checkpoint`, or `tokenizer` beside it.")
    files = _FILES if with_weights else _BESIDE_WEIGHTS
    path = epath.Path(checkpoint)
    if path.is_dir():
        return artifacts.local_copy(path, files)
    if not is_hub_id(checkpoint):
        raise InputError(
            f"{checkpoint}: no such checkpoint directory, and not a hub id (owner/name, or "
            "owner/name@revision, which `hf download` brings into a folder of any name)."
        )
    name, _, revision = checkpoint.partition("@")
    first = name.split("/")[0]
    if epath.Path(first).is_dir():
        raise InputError(
            f"{checkpoint}: no such checkpoint directory in {first}/, which is here; it holds "
            f"{', '.join(f.name for f in artifacts.files_in(first)[:8]) or 'nothing'}. (A hub id is "
            f"looked up where no folder is named {first}.)"
        )
    import huggingface_hub

    try:
        return epath.Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=files,
                ignore_patterns=["*/*", "consolidated*"],  # other formats of the same weights
            )
        )
    except Exception as error:
        raise InputError(
            f"{checkpoint}: not a local directory, and the Hugging Face hub did not give it "
            f"({_brief(error)}). Without network, download it elsewhere (`hf download`) and give the "
            "directory's path; for a gated model accept its licence there and log in (`hf auth login`)."
        ) from error


def is_hub_id(checkpoint: str) -> bool:
    """Whether it is spelt as one: owner/name, or owner/name@revision."""
    spelt = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", checkpoint)
    return spelt is not None and not checkpoint.startswith(".")


def read_config(path: epath.PathLike) -> dict[str, Any]:
    """A parsed config.json, from the file or the directory that holds it."""
    path = epath.Path(path)
    file = path if path.suffix == ".json" else path / "config.json"
    if not file.exists():
        raise InputError(f"{file}: no such file; a checkpoint directory needs a config.json.")
    value = artifacts.read_json(file)
    if not isinstance(value, dict):
        raise InputError(f"{file}: a JSON object is expected, not {type(value).__name__}.")
    return value


def config_digest(path: epath.PathLike) -> str:
    """The SHA-256 of a parsed config.json: spaces and the order of names are no part of it."""
    return hashlib.sha256(json.dumps(read_config(path), sort_keys=True).encode()).hexdigest()


def load_config(path: epath.PathLike) -> DecoderConfig:
    """The decoder settings a config.json describes."""
    return decoder_config(read_config(path), str(path))


def save_model(
    path: epath.PathLike,
    params: Params,
    config: DecoderConfig,
    hf_config: dict[str, Any],
    *,
    dtype: Any,
    tokenizer: Any = None,
    source: epath.Path | None = None,
) -> None:
    """Write a directory that transformers loads: config.json, weights, tokeniser, generation config.

    Args:
      params: nested dict of arrays, gathered to the host a shard at a time.
      hf_config: the config.json the model came from; `architectures` and `dtype` are
        replaced, and `auto_map` left out.
      dtype: of the tensors on disk.
      tokenizer: a transformers tokeniser to save beside the weights, with its chat template.
      source: the directory the model came from; its generation_config.json is kept.
    """
    path = epath.Path(path)
    save_params(path, params, config, dtype=dtype)
    if jax.process_index():
        return
    stored = dict(hf_config) | {
        "architectures": [FAMILIES[config.family].architecture],
        "dtype": jnp.dtype(dtype).name,
    }
    # The older name of `dtype`; code, and a file of weights, that are not beside it.
    for name in ("torch_dtype", "auto_map", EXPLICIT):
        stored.pop(name, None)
    if source is not None and (source / GENERATION).exists():
        artifacts.write_bytes(path / GENERATION, (source / GENERATION).read_bytes())
    if tokenizer is not None:
        with artifacts.failing_as_oserror(path), artifacts.writing_folder(path) as folder:
            tokenizer.save_pretrained(str(folder))
    # Written last: a directory with a config.json is a complete one.
    artifacts.write_json(path / "config.json", stored)


def load_tokenizer(path: epath.PathLike) -> Any:
    """The transformers tokeniser of a checkpoint directory.

    Raises:
      InputError: no tokeniser there, or one without an end-of-sequence token.
    """
    import transformers

    try:
        folder = str(artifacts.local_copy(path, _BESIDE_WEIGHTS))
        # False, not unset: unset asks at the terminal whether to run the code that a folder names.
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise InputError(
            f"{path}: no tokeniser could be loaded ({_brief(error)}). The directory needs "
            "tokenizer.json and tokenizer_config.json."
        ) from error
    # Without its files, transformers may make an empty tokeniser from the config.json of a model.
    if tokenizer.get_vocab().keys() <= tokenizer.get_added_vocab().keys():
        raise InputError(f"{path}: no tokeniser there; it needs tokenizer.json and tokenizer_config.json.")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{path}: the tokeniser names no eos_token; add it to tokenizer_config.json.")
    return tokenizer


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
