"""How tensors of a Hugging Face checkpoint lie in the decoder's parameters."""

import dataclasses
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


def matrix(name: str, leaf: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> HFTensor:
    """A torch Linear weight [out, in] and its [*inputs, *outputs] kernel."""
    return stacked_matrices(name, (leaf,), inputs, (outputs,))


def stacked_matrices(
    name: str, leaves: tuple[str, ...], inputs: tuple[int, ...], outputs: tuple[tuple[int, ...], ...]
) -> HFTensor:
    """Torch Linear weights, one upon the other in one tensor, and their kernels."""
    rows = [int(np.prod(shape)) for shape in outputs]
    cuts = np.cumsum(rows)[:-1]

    def split(w: np.ndarray) -> tuple[np.ndarray, ...]:
        parts = np.split(w, cuts)
        return tuple(p.T.reshape(*inputs, *o) for p, o in zip(parts, outputs, strict=True))

    def join(*kernels: np.ndarray) -> np.ndarray:
        return np.concatenate([k.reshape(-1, r).T for k, r in zip(kernels, rows, strict=True)])

    return HFTensor(name, leaves, split, join)


def vector(name: str, leaf: str, shape: tuple[int, ...]) -> HFTensor:
    """A flat bias and its [*shape] counterpart."""
    return HFTensor(name, (leaf,), lambda b: (b.reshape(shape),), lambda b: b.reshape(-1))


def norm(config: DecoderConfig, name: str, leaf: str) -> list[HFTensor]:
    """A norm's scale and, for a layer norm, its bias."""
    scale = [copy(f"{name}.weight", f"{leaf}/scale")]
    return [*scale, copy(f"{name}.bias", f"{leaf}/bias")] if config.norm == "layer" else scale


def linear(
    name: str, leaf: str, inputs: tuple[int, ...], outputs: tuple[int, ...], *, bias: bool
) -> list[HFTensor]:
    """A torch Linear layer: its weight and, where it has one, its bias."""
    weight = [matrix(f"{name}.weight", f"{leaf}/kernel", inputs, outputs)]
    return [*weight, vector(f"{name}.bias", f"{leaf}/bias", outputs)] if bias else weight


def head(config: DecoderConfig, name: str) -> list[HFTensor]:
    """The output matrix, which models with tied embeddings do without."""
    if config.tied_embeddings:
        return []
    hidden, vocab = (config.hidden_size,), (config.vocab_size,)
    return linear(name, "lm_head", hidden, vocab, bias=config.head_bias)
