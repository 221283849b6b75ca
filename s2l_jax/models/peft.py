"""LoRA adapters as directories that PEFT loads onto the Hugging Face model, either way."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Int64

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.gather import to_host
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.lora import Lora
from s2l_jax.models.parameters import Params, flatten_params, nest_params, parameter_shapes
from s2l_jax.models.weights import hf_tensors, write_tensors

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"


@dataclasses.dataclass(frozen=True)
class _Module:
    """A matrix of the Hugging Face model with adapters of one projection, or of several fused in it.

    Adapters of k fused projections are one of rank k r: their A lie one upon the other, and B has a
    block for each.
    """

    name: str  # with {layer}
    projections: tuple[str, ...]  # those with adapters, such as layers/attention/query
    spans: tuple[slice, ...]  # of each in the outputs of all that are fused, one after the other
    order: Int64[np.ndarray, "o"]  # which of those outputs each output of the matrix is
    inputs_first: bool  # the matrix lies [in, out], not [out, in]

    @property
    def pattern(self) -> str:
        """How PEFT's settings call it: two words, since gpt2 has a c_proj in attention and in the MLP."""
        return ".".join(self.name.split(".")[-2:])

    def keys(self, layer: int) -> tuple[str, str]:
        """Names of its A and B in a PEFT file."""
        name = f"base_model.model.{self.name.format(layer=layer)}"
        return f"{name}.lora_A.weight", f"{name}.lora_B.weight"


def save_adapter(
    path: epath.PathLike,
    adapters: Params,
    config: DecoderConfig,
    *,
    base: str,
    dtype: Any,
    tokenizer: Any = None,
) -> None:
    """Write adapter_config.json, adapter_model.safetensors (in `dtype`) and the tokeniser.

    Every process takes part in gathering the adapters, one writes. `base` is the directory or hub id
    of the model they belong to.
    """
    path, lora = epath.Path(path), _lora(config)
    modules = list(_modules(config))
    flat = {name: to_host(leaf.astype(dtype)) for name, leaf in flatten_params(adapters).items()}
    if jax.process_index():
        return
    tensors = {}
    for module in modules:
        for layer in range(config.num_layers):
            key_a, key_b = module.keys(layer)
            a = [flat[f"{p}/lora/a"][layer].reshape(-1, lora.rank).T for p in module.projections]
            b = np.zeros((len(module.order), len(a) * lora.rank), a[0].dtype)
            for i, (projection, span) in enumerate(zip(module.projections, module.spans, strict=True)):
                block = flat[f"{projection}/lora/b"][layer].reshape(lora.rank, -1)
                b[span, i * lora.rank : (i + 1) * lora.rank] = block.T
            # safetensors writes an array's memory as it lies.
            tensors[key_a] = np.ascontiguousarray(np.concatenate(a))
            tensors[key_b] = np.ascontiguousarray(b[module.order])
    write_tensors(path, WEIGHTS, tensors)
    if tokenizer is not None:
        with artifacts.failing_as_oserror(path), artifacts.writing_folder(path) as folder:
            tokenizer.save_pretrained(str(folder))
    # Written last: a directory with these settings is a complete one.
    artifacts.write_json(path / SETTINGS, _settings(lora, modules, base))


def load_adapter(path: epath.PathLike, config: DecoderConfig) -> Params:
    """The adapters that `save_adapter` wrote, as a nested dict of float32 arrays on the host.

    Raises:
      InputError: not there, or not the adapters of this config.
    """
    from safetensors.numpy import load_file

    file, lora, shapes = epath.Path(path) / WEIGHTS, _lora(config), parameter_shapes(config)
    if not file.exists():
        raise InputError(f"{file}: no such file; a PEFT adapter has one.")
    stored, flat = load_file(str(file)), {}
    for module in _modules(config):
        keys = [module.keys(layer) for layer in range(config.num_layers)]
        if absent := [key for pair in keys for key in pair if key not in stored]:
            raise InputError(f"{file}: not the adapter that target.lora describes: no {absent[0]}.")
        a, b = (np.stack([stored[pair[i]] for pair in keys]).astype(np.float32) for i in (0, 1))
        if a.shape[1] != len(module.projections) * lora.rank:
            raise InputError(f"{file}: {keys[0][0]} has rank {a.shape[1]}, not that of target.lora.")
        outputs = np.empty_like(b)
        outputs[:, module.order] = b
        for i, (projection, span) in enumerate(zip(module.projections, module.spans, strict=True)):
            ranks = slice(i * lora.rank, (i + 1) * lora.rank)
            for name, part in (("a", a[:, ranks]), ("b", outputs[:, span, ranks])):
                leaf = f"{projection}/lora/{name}"
                flat[leaf] = part.swapaxes(1, 2).reshape(shapes[leaf])
    return nest_params(flat)


def _lora(config: DecoderConfig) -> Lora:
    assert config.lora is not None, "the settings of a decoder with adapters are needed"
    return config.lora


def _modules(config: DecoderConfig) -> Iterator[_Module]:
    shapes = parameter_shapes(config)
    for tensor in hf_tensors(config):
        projections = [leaf.removesuffix("/kernel") for leaf in tensor.leaves]
        adapted = [p for p in projections if f"{p}/lora/a" in shapes]
        if not adapted or not tensor.name.endswith(".weight"):
            continue
        inputs = shapes[f"{adapted[0]}/lora/a"][1:-1]
        numbered, spans, start = [], {}, 0
        for projection in projections:
            outputs = shapes[f"{projection}/kernel"][1 + len(inputs) :]
            numbers = start + np.arange(np.prod(outputs)).reshape(outputs)
            numbered.append(np.broadcast_to(numbers, (*inputs, *outputs)))
            spans[projection] = slice(start, start + numbers.size)
            start += numbers.size
        # Kernels that hold the number of their output show where the family's layout puts each.
        matrix = tensor.join(*numbered)
        inputs_first = bool(matrix[0, 0] != matrix[0, 1])
        order = matrix[0] if inputs_first else matrix[:, 0]
        name = tensor.name.removesuffix(".weight")
        yield _Module(name, tuple(adapted), tuple(spans[p] for p in adapted), order, inputs_first)


def _settings(lora: Lora, modules: list[_Module], base: str) -> dict[str, Any]:
    fused = {m.pattern: len(m.projections) for m in modules if len(m.projections) > 1}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "fan_in_fan_out": any(m.inputs_first for m in modules),
        "target_modules": [m.pattern for m in modules],
        # The scale alpha / r is the same everywhere.
        "rank_pattern": {pattern: count * lora.rank for pattern, count in fused.items()},
        "alpha_pattern": {pattern: count * lora.alpha for pattern, count in fused.items()},
    }
