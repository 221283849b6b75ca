"""How tensors of a Hugging Face checkpoint lie in the decoder's parameters."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from s2l_jax.models.architecture import DecoderConfig


@dataclasses.dataclass(frozen=True)
class HFTensor:
    """One tensor of a Hugging Face checkpoint and the decoder parameters it holds.

    `name` and `leaves` of a tensor that every layer has contain `{layer}` and `layers/`; `split`
    turns one such tensor into that layer's slice of each leaf, and `join` is its inverse.
    """

    name: str
    leaves: tuple[str, ...]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    join: Callable[..., np.ndarray]


def copy(name: str, leaf: str) -> HFTensor:
    """A tensor that lies the same way on both sides."""
    return HFTensor(name, (leaf,), lambda w: (w,), lambda w: w)


def matrices(
    name: str,
    leaves: tuple[str, ...],
    inputs: tuple[int, ...],
    outputs: tuple[tuple[int, ...], ...],
    *,
    inputs_first: bool = False,
) -> HFTensor:
    """One matrix with the outputs of some projections one after the other, and their kernels or biases.

    Args:
      name: of the tensor.
      leaves: the kernels [*inputs, *outputs].
      inputs: axes that a projection sums over; none for biases, which lie in one vector.
      outputs: axes of each projection.
      inputs_first: the matrix lies [in, out], not [out, in] as that of a torch Linear.
    """
    sizes = [math.prod(shape) for shape in outputs]
    cuts, axis = np.cumsum(sizes)[:-1], int(inputs_first)

    def split(w: np.ndarray) -> tuple[np.ndarray, ...]:
        parts = (part if inputs_first else part.T for part in np.split(w, cuts, axis))
        return tuple(part.reshape(*inputs, *shape) for part, shape in zip(parts, outputs, strict=True))

    def join(*kernels: np.ndarray) -> np.ndarray:
        rows = (-1,) if inputs else ()
        flat = (kernel.reshape(*rows, size) for kernel, size in zip(kernels, sizes, strict=True))
        return np.concatenate([part if inputs_first else part.T for part in flat], axis)

    return HFTensor(name, leaves, split, join)


def norm(config: DecoderConfig, name: str, leaf: str) -> list[HFTensor]:
    """A norm's scale and, for a layer norm, its bias."""
    scale = [copy(f"{name}.weight", f"{leaf}/scale")]
    return [*scale, copy(f"{name}.bias", f"{leaf}/bias")] if config.norm == "layer" else scale


def linear(
    name: str,
    leaf: str,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    *,
    bias: bool,
    inputs_first: bool = False,
) -> list[HFTensor]:
    """A linear layer: its weight and, where it has one, its bias."""
    weight = [matrices(f"{name}.weight", (f"{leaf}/kernel",), inputs, (outputs,), inputs_first=inputs_first)]
    return [*weight, matrices(f"{name}.bias", (f"{leaf}/bias",), (), (outputs,))] if bias else weight


def head(config: DecoderConfig, name: str) -> list[HFTensor]:
    """The output matrix, which models with tied embeddings do without."""
    if config.tied_embeddings:
        return []
    hidden, vocab = (config.hidden_size,), (config.vocab_size,)
    return linear(name, "lm_head", hidden, vocab, bias=config.head_bias)
