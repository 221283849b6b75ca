"""Models in Hugging Face layout: config.json and safetensors in, straight to their sharding, and out."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.models.decoder import (
    DecoderConfig,
    Params,
    flatten_params,
    nest_params,
    parameter_shapes,
)
from s2l_jax.models.families import HFTensor, decoder_config, family

Shardings = Mapping[str, jax.sharding.Sharding]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def resolve(checkpoint: str) -> epath.Path:
    """The local directory of a checkpoint; a hub id is downloaded (config, tokeniser, safetensors).

    Raises:
      InputError: neither a directory nor a hub repository that can be reached.
    """
    if not checkpoint:
        raise InputError("no checkpoint or tokeniser is named: set `checkpoint`, or `tokenizer` beside it.")
    path = epath.Path(checkpoint)
    if path.is_dir():
        return path
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", checkpoint) or checkpoint.startswith("."):
        raise InputError(f"{checkpoint}: no such checkpoint directory, and not a hub id (owner/name).")
    import huggingface_hub

    try:
        return epath.Path(
            huggingface_hub.snapshot_download(
                checkpoint,
                allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"],
            )
        )
    except Exception as error:
        raise InputError(
            f"{checkpoint}: not a local directory, and the Hugging Face hub did not give it "
            f"({_brief(error)}). Without network, download it elsewhere (`hf download`) and give the "
            "directory's path."
        ) from error


def read_config(path: epath.PathLike) -> dict[str, Any]:
    """A parsed config.json, from the file or the directory that holds it."""
    path = epath.Path(path)
    file = path if path.suffix == ".json" else path / "config.json"
    if not file.exists():
        raise InputError(f"{file}: no such file; a checkpoint directory needs a config.json.")
    return _read_object(file)


def load_config(path: epath.PathLike) -> DecoderConfig:
    """The decoder settings a config.json describes."""
    return decoder_config(read_config(path), str(path))


def load_params(directory: epath.Path, config: DecoderConfig, *, dtype: Any, shardings: Shardings) -> Params:
    """Read every parameter of a checkpoint directory into its sharding, one leaf at a time.

    Args:
      directory: holds config.json and model.safetensors, or shards with their index.
      config: what `load_config` made of that directory.
      dtype: of the parameters in memory.
      shardings: by parameter path.

    Raises:
      InputError: weights missing, or tensors missing, unexpected or of a shape that does not fit
        config.json; all of them are listed.
    """
    reader = _Reader(directory)
    table = family(read_config(directory), str(directory)).tensors(config)
    _check(reader, table, config, directory)
    shapes = parameter_shapes(config)
    leaves = {}
    for tensor in table:
        for number, leaf in enumerate(tensor.leaves):
            read = functools.partial(_read_leaf, reader, tensor, number, shapes[leaf], dtype)
            leaves[leaf] = jax.make_array_from_callback(shapes[leaf], shardings[leaf], read)
    return nest_params(leaves)


def check_weights(directory: epath.Path, config: DecoderConfig) -> None:
    """Check names and shapes of a checkpoint's tensors without reading them.

    Raises:
      InputError: as `load_params`.
    """
    table = family(read_config(directory), str(directory)).tensors(config)
    _check(_Reader(directory), table, config, directory)


def save_model(
    path: epath.PathLike,
    params: Params,
    config: DecoderConfig,
    hf_config: dict[str, Any],
    *,
    dtype: Any,
    tokenizer: Any = None,
) -> None:
    """Write config.json, model.safetensors and the tokeniser so that transformers loads them.

    Args:
      params: nested dict of arrays, gathered leaf by leaf to the host.
      hf_config: the config.json the model came from; only `architectures` and `dtype` are replaced.
      dtype: float32 or bfloat16, of the tensors on disk.
      tokenizer: a transformers tokeniser to save beside the weights.
    """
    import safetensors.numpy

    path = epath.Path(path)
    kind = family(hf_config, str(path))
    flat = {k: _host(v, dtype) for k, v in flatten_params(params).items()}
    tensors = {}
    for tensor in kind.tensors(config):
        if "{layer}" in tensor.name:
            for layer in range(config.num_layers):
                parts = [flat[leaf][layer] for leaf in tensor.leaves]
                tensors[tensor.name.format(layer=layer)] = np.ascontiguousarray(tensor.join(*parts))
        else:
            joined = tensor.join(*(flat[leaf] for leaf in tensor.leaves))
            tensors[tensor.name] = np.ascontiguousarray(joined)
    if jax.process_index():
        return
    stored = dict(hf_config) | {"architectures": [kind.architecture], "dtype": np.dtype(dtype).name}
    stored.pop("torch_dtype", None)
    path.mkdir(parents=True, exist_ok=True)
    artifacts.write_bytes(path / WEIGHTS, safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    if tokenizer is not None:
        tokenizer.save_pretrained(str(path))
    # Written last: a directory with a config.json is a complete one.
    artifacts.write_json(path / "config.json", stored)


class _Reader:
    """Random access to the tensors of one checkpoint directory."""

    def __init__(self, directory: epath.Path):
        self.files: dict[str, epath.Path] = {}
        self._open: dict[epath.Path, Any] = {}
        if (directory / INDEX).exists():
            index = _read_object(directory / INDEX).get("weight_map", {})
            shards = sorted(set(index.values()))
            if absent := [shard for shard in shards if not (directory / shard).exists()]:
                raise InputError(
                    f"{directory / INDEX}: names shards that are not there: {', '.join(absent)}."
                )
            held = {shard: set(self._file(directory / shard).keys()) for shard in shards}
            self.files = {n: directory / shard for n, shard in index.items() if n in held[shard]}
        elif (directory / WEIGHTS).exists():
            self.files = dict.fromkeys(self._file(directory / WEIGHTS).keys(), directory / WEIGHTS)
        else:
            hint = ""
            if list(directory.glob("pytorch_model*.bin")):
                hint = (
                    " It has pytorch_model.bin: load it in transformers and call "
                    "save_pretrained(..., safe_serialization=True) once."
                )
            raise InputError(
                f"{directory}: no {WEIGHTS} and no {INDEX}: no weights to load.{hint} To start from "
                "random weights set init='random'."
            )

    def _file(self, path: epath.Path) -> Any:
        if path not in self._open:
            import safetensors

            try:
                self._open[path] = safetensors.safe_open(str(path), framework="numpy")
            except Exception as error:
                raise InputError(f"{path}: not a readable safetensors file ({error}).") from error
        return self._open[path]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file(self.files[name]).get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        return self._file(self.files[name]).get_tensor(name)


def _names(tensor: HFTensor, num_layers: int) -> list[str]:
    if "{layer}" in tensor.name:
        return [tensor.name.format(layer=i) for i in range(num_layers)]
    return [tensor.name]


def _check(reader: _Reader, table: list[HFTensor], config: DecoderConfig, directory: epath.Path) -> None:
    shapes = parameter_shapes(config)
    problems, expected = [], set()
    for tensor in table:
        layered = "{layer}" in tensor.name
        slices = [np.empty(shapes[leaf][layered:], np.bool_) for leaf in tensor.leaves]
        want = tensor.join(*slices).shape
        for name in _names(tensor, config.num_layers):
            expected.add(name)
            if name not in reader.files:
                problems.append(f"{name} is missing")
            elif (got := reader.shape(name)) != want:
                problems.append(f"{name} has shape {list(got)}, config.json asks for {list(want)}")
    buffers = family(read_config(directory), str(directory)).buffers
    tied = {"embed_out.weight", "lm_head.weight"} if config.tied_embeddings else set()
    for name in sorted(set(reader.files) - expected - tied):
        if not name.endswith(buffers):
            problems.append(f"{name} is not part of a {config.family} model")
    if problems:
        raise InputError(f"{directory}: the weights do not fit config.json:\n  " + "\n  ".join(problems))


def _read_leaf(
    reader: _Reader,
    tensor: HFTensor,
    number: int,
    shape: tuple[int, ...],
    dtype: Any,
    index: tuple[slice, ...],
) -> np.ndarray:
    if "{layer}" not in tensor.name:
        return np.asarray(tensor.split(reader.read(tensor.name))[number][index], dtype)
    layers = range(*index[0].indices(shape[0]))
    return np.stack(
        [
            np.asarray(tensor.split(reader.read(tensor.name.format(layer=i)))[number][index[1:]], dtype)
            for i in layers
        ]
    )


def _host(leaf: jax.Array, dtype: Any) -> np.ndarray:
    if not leaf.is_fully_addressable:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf.astype(dtype), tiled=True))
    return np.asarray(leaf.astype(dtype))


def load_tokenizer(path: epath.PathLike) -> Any:
    """The transformers tokeniser of a checkpoint directory.

    Raises:
      InputError: no tokeniser there, or one without an end-of-sequence token.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path))
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


def _read_object(file: epath.Path) -> dict[str, Any]:
    try:
        value = artifacts.read_json(file)
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{file}: a JSON object is expected, not {type(value).__name__}.")
    return value


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


DTYPES: dict[str, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
