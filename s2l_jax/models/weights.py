"""The decoder's parameters and the safetensors files of a Hugging Face checkpoint, either way."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.gather import to_host
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.families import FAMILIES
from s2l_jax.models.families.layout import HFTensor
from s2l_jax.models.parameters import (
    Params,
    flatten_params,
    nest_params,
    parameter_shapes,
    stored_shapes,
)
from s2l_jax.models.weight_files import INDEX, WEIGHTS, index_of, open_tensors

Shardings = Mapping[str, jax.sharding.Sharding]
Index = tuple[slice, ...]
DTYPES: dict[str, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
SHARD_BYTES = 4 * 2**30  # a checkpoint above this is written as several files
_HEADS = {"embed_out.weight", "lm_head.weight"}
_STORED = ("F64", "F32", "F16", "BF16")  # dtypes that weights are read from


def load_params(directory: epath.Path, config: DecoderConfig, *, dtype: Any, shardings: Shardings) -> Params:
    """Read every parameter of a checkpoint directory into its sharding, one leaf at a time.

    On the host there is never more than what its own devices hold of one leaf, and one tensor. The
    vocabulary's padding is zeros.

    Args:
      directory: local; holds model.safetensors, or shards with their index.
      config: settings of the decoder.
      dtype: of the parameters in memory.
      shardings: by parameter path.

    Raises:
      InputError: a dtype that is not supported; weights missing; tensors missing, unexpected, of
        a shape that does not fit config.json or of a strange dtype: all of them are listed.
    """
    named = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    if named not in DTYPES:
        raise InputError(f"dtype {named} is not supported; choose one of {', '.join(DTYPES)}.")
    files = _TensorFiles(directory, config)
    files.check()
    files.check_tie()
    shapes = parameter_shapes(config)
    places = {leaf: (tensor, n) for tensor in hf_tensors(config) for n, leaf in enumerate(tensor.leaves)}
    # The largest first: what reading takes besides the leaf itself is then on top of the least.
    order = sorted(shapes, key=lambda leaf: -np.prod(shapes[leaf]))
    return nest_params(
        {leaf: _load_leaf(files, *places[leaf], shapes[leaf], dtype, shardings[leaf]) for leaf in order}
    )


def check_weights(directory: epath.Path, config: DecoderConfig) -> None:
    """Check names, shapes and dtypes of a checkpoint's tensors, which are not read, but for tied ones.

    Raises:
      InputError: as `load_params`.
    """
    files = _TensorFiles(directory, config)
    files.check()
    files.check_tie()


def save_params(folder: epath.Path, params: Params, config: DecoderConfig, *, dtype: Any) -> None:
    """Write model.safetensors, or shards with their index, without the vocabulary's padding.

    Every process takes part in gathering; one writes. At most a shard is on the host at a time.
    """
    _clear(folder)
    item = jnp.dtype(dtype).itemsize
    shards: list[list[str]] = [[]]
    room, total = SHARD_BYTES, 0
    for name, shape in stored_tensors(config):
        size = math.prod(shape) * item
        if shards[-1] and size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room, total = room - size, total + size
    tensors = _gathered(params, config, dtype)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard = {name: next(tensors)[1] for name in names}
        index |= dict.fromkeys(names, file)
        if jax.process_index() == 0:
            write_tensors(folder, file, shard)
    if len(shards) > 1 and jax.process_index() == 0:
        artifacts.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": index})


def write_tensors(folder: epath.Path, name: str, tensors: dict[str, np.ndarray]) -> None:
    """Write one safetensors file, whole or not at all."""
    from safetensors.numpy import save_file

    with artifacts.writing(folder / name) as file:
        save_file(tensors, str(file), metadata={"format": "pt"})
        artifacts.share(file)


def hf_tensors(config: DecoderConfig) -> list[HFTensor]:
    """The tensors of a checkpoint of this model, one for all layers."""
    return FAMILIES[config.family].tensors(config)


def _clear(folder: epath.Path) -> None:
    """Remove an older model's weights: a single file left behind would be preferred to an index."""
    if jax.process_index() == 0 and folder.exists():
        artifacts.remove_unfinished(folder)
        for name in ("config.json", INDEX, WEIGHTS):
            (folder / name).unlink(missing_ok=True)
        for shard in artifacts.files_in(folder, "model-*-of-*.safetensors"):
            shard.unlink()


class _TensorFiles:
    """Random access to the tensors of one checkpoint directory, by the names its family gives them."""

    def __init__(self, directory: epath.Path, config: DecoderConfig):
        self._directory, self._config, self._family = directory, config, FAMILIES[config.family]
        index = index_of(directory)
        found = {}
        for file in index.files:
            with open_tensors(directory / file) as opened:
                for name in opened.keys():  # noqa: SIM118  (not a mapping)
                    if index.weight_map.get(name, file) == file:
                        part = opened.get_slice(name)
                        found[name] = (directory / file, tuple(part.get_shape()), part.get_dtype())
        # Checkpoints of the model without its head lack the prefix that all other names begin with.
        self._bare = not any(name.startswith(self._family.prefix) for name in found)
        self._found = found
        others = artifacts.files_in(directory, "*.safetensors")
        self._others = [f.name for f in others if f.name not in index.files]

    def stored_name(self, name: str) -> str:
        """What the files call a tensor."""
        return name.removeprefix(self._family.prefix) if self._bare else name

    def read(self, name: str) -> np.ndarray:
        """A tensor; its file is opened for it alone, since pages of a mapped file stay in memory."""
        return self._read(self.stored_name(name))

    def _read(self, name: str) -> np.ndarray:
        with open_tensors(self._found[name][0]) as opened:
            return opened.get_tensor(name)

    def check(self) -> None:
        """Compare names, shapes and dtypes with what the family's table asks for."""
        config = self._config
        problems, expected = [], set()
        for tensor in hf_tensors(config):
            want = _stored_shape(tensor, config)
            for name in map(self.stored_name, _names(tensor, config.num_layers)):
                expected.add(name)
                if name not in self._found:
                    problems.append(f"{name} is missing")
                    continue
                _, shape, dtype = self._found[name]
                if shape != want:
                    problems.append(f"{name} has shape {list(shape)}, config.json asks for {list(want)}")
                if dtype not in _STORED:
                    problems.append(f"{name} is stored as {dtype}; save the weights in float or bfloat16")
        tied = _HEADS if config.tied_embeddings else set()
        for name in sorted(self._found.keys() - expected - tied):
            if not f".{name}".endswith(self._family.buffers):
                problems.append(f"{name} is not part of a {config.family} model with this config.json")
        if problems and self._others:
            problems.append(f"files here that were not looked at: {', '.join(self._others)}")
        if problems:
            listed = "\n  ".join(problems)
            raise InputError(f"{self._directory}: the weights do not fit config.json:\n  {listed}")

    def check_tie(self) -> None:
        """Refuse a checkpoint that calls its embeddings tied and holds another output matrix."""
        if not self._config.tied_embeddings:
            return
        (embedding,) = (t.name for t in hf_tensors(self._config) if "embed/embedding" in t.leaves)
        for name in _HEADS & self._found.keys():
            head = self._found[name][0]
            if not np.array_equal(self._read(name), self.read(embedding)):
                raise InputError(
                    f"{head}: {name} is not the embedding, though config.json ties the two: set "
                    "tie_word_embeddings to false there."
                )


def _names(tensor: HFTensor, num_layers: int) -> list[str]:
    return [tensor.name.format(layer=i) for i in range(num_layers if "{layer}" in tensor.name else 1)]


def _stored_shape(tensor: HFTensor, config: DecoderConfig) -> tuple[int, ...]:
    shapes, layered = stored_shapes(config), "{layer}" in tensor.name
    # Zero strides: the shapes are worked out without the memory.
    parts = [np.broadcast_to(np.False_, shapes[leaf][layered:]) for leaf in tensor.leaves]
    return tensor.join(*parts).shape


def stored_tensors(config: DecoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor that a checkpoint of this model has."""
    for tensor in hf_tensors(config):
        shape = _stored_shape(tensor, config)
        yield from ((name, shape) for name in _names(tensor, config.num_layers))


def _load_leaf(
    files: _TensorFiles,
    tensor: HFTensor,
    number: int,
    shape: tuple[int, ...],
    dtype: Any,
    sharding: jax.sharding.Sharding,
) -> jax.Array:
    here = filter(None, sharding.addressable_devices_indices_map(shape).values())
    spans = np.array([[s.indices(n)[:2] for s, n in zip(index, shape, strict=True)] for index in here])
    low, high = spans[..., 0].min(axis=0), spans[..., 1].max(axis=0)
    box = tuple(map(slice, low, high))
    held = np.zeros(high - low, dtype)

    def fill(part: np.ndarray, name: str, box: Index) -> None:
        read = tensor.split(files.read(name))[number][box]
        part[tuple(map(slice, read.shape))] = read

    if "{layer}" in tensor.name:
        for layer in range(low[0], high[0]):
            fill(held[layer - low[0]], tensor.name.format(layer=layer), box[1:])
    else:
        fill(held, tensor.name, box)

    def local(index: Index | None) -> np.ndarray:
        spans = [s.indices(n) for s, n in zip(index or (), shape, strict=True)]
        return held[tuple(slice(a - at, b - at) for (a, b, _), at in zip(spans, low, strict=True))]

    return jax.make_array_from_callback(shape, sharding, local)


def _gathered(params: Params, config: DecoderConfig, dtype: Any) -> Iterator[tuple[str, np.ndarray]]:
    flat, shapes = flatten_params(params), stored_shapes(config)

    def host(leaf: str, layer: int | None) -> np.ndarray:
        array = flat[leaf] if layer is None else flat[leaf][layer]
        shape = shapes[leaf] if layer is None else shapes[leaf][1:]
        return to_host(array.astype(dtype))[tuple(map(slice, shape))]

    for tensor in hf_tensors(config):
        layers = range(config.num_layers) if "{layer}" in tensor.name else [None]
        for layer, name in zip(layers, _names(tensor, config.num_layers), strict=True):
            joined = tensor.join(*(host(leaf, layer) for leaf in tensor.leaves))
            yield name, np.ascontiguousarray(joined)
