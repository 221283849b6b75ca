"""Bytes that a device moves to and from its memory, counted by what products and the optimiser must read."""

import math

from s2l_jax.data.batching import Size
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import LOGICAL_AXES, abstract_params, flatten_params, num_trained

_ADAMW = 7 * 4  # a parameter: it, its gradient and both moments are read, all but the gradient written
_GRADIENT = 2 * 4  # a parameter and microbatch: added to what there is


def training_bytes(
    config: DecoderConfig,
    size: Size,
    width: int,
    *,
    groups: int,
    shards: int,
    tensor: int,
    passes: int,
    times: int,
) -> float:
    """Of an optimiser step.

    Args:
      size: of the step, all devices.
      width: bytes of a number in matrix products.
      groups: row groups of the mesh.
      shards: devices that parameters are spread over.
      tensor: size of that axis.
      passes: over the layers: forwards, backwards for inputs and for weights, and once more where activations
        are computed again.
      times: microbatches.
    """
    state = num_trained(config) / shards * (_ADAMW + times * _GRADIENT)
    read = times * passes * _matrices(config) * width / tensor
    logits = 3 * 4 * size.loss_tokens * config.vocab_size
    moved = passes * _activations(config) * width * (size.tokens - size.spared) + logits
    return state + read + moved / (groups * tensor)


def forward_bytes(
    config: DecoderConfig, size: Size, width: int, *, groups: int, tensor: int, times: int
) -> float:
    """Of forward passes in `times` microbatches; the other arguments are those of `training_bytes`."""
    read = times * _matrices(config) * width / tensor
    moved = (
        _activations(config) * width * (size.tokens - size.spared) + 4 * size.loss_tokens * config.vocab_size
    )
    return read + moved / (groups * tensor)


def decoding_bytes(config: DecoderConfig, width: int, *, rows: int, slots: int, tensor: int) -> float:
    """Of one decoding step of `rows` rows of a device, whose caches have `slots` tokens."""
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * slots * width
    return (_matrices(config) * width + rows * cache) / tensor


def _matrices(config: DecoderConfig) -> int:
    """Numbers in the matrices that a pass reads whole: not those of the embedding, unless it is the head."""
    found = 0
    for path, leaf in flatten_params(abstract_params(config)).items():
        is_looked_up = path.startswith("embed") and not (config.tied_embeddings and path == "embed/embedding")
        found += 0 if is_looked_up else math.prod(leaf.shape)
    return found


def _activations(config: DecoderConfig) -> int:
    """Numbers that the layers' matrix products read and write for a token."""
    found = 0
    for path, leaf in flatten_params(abstract_params(config)).items():
        if path.endswith("/kernel") and path.startswith("layers/"):
            _, *axes = LOGICAL_AXES[path]
            embed = axes.index("embed")
            other = math.prod(leaf.shape[1:]) // leaf.shape[1 + embed]
            found += leaf.shape[0] * (leaf.shape[1 + embed] + other)
    return found
