"""Model FLOPs by count, and the peak they are compared with."""

import functools
import time

import jax
import jax.numpy as jnp

from s2l_jax.data.batching import Size
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import num_trained
from s2l_jax.parallel.chips import chip_of


def forward_flops(config: DecoderConfig, size: Size) -> float:
    """Matrix-product FLOPs of one forward pass; logits at response positions alone, all layers at all tokens.

    Two a parameter and token, and four a head dimension and attended pair; padding not counted.
    """
    width = config.num_heads * config.head_dim
    shared = config.num_kv_heads * config.head_dim
    mlp = (3 if config.gated_mlp else 2) * config.intermediate_size
    layer = config.hidden_size * (2 * width + 2 * shared + mlp)
    return float(
        2 * config.num_layers * layer * (size.tokens - size.spared)
        + 4 * config.num_layers * width * size.pairs
        + 2 * config.hidden_size * config.vocab_size * size.loss_tokens
    )


def training_flops(config: DecoderConfig, size: Size) -> float:
    """A backward pass costs two forward passes, one where weights are frozen; recomputation not counted."""
    if config.lora is None:
        return 3 * forward_flops(config, size)
    return 2 * forward_flops(config, size) + 6.0 * num_trained(config) * (size.tokens - size.spared)


@functools.lru_cache
def peak_flops() -> float:
    """Peak FLOP/s of all devices by the data sheet; on a CPU that of a float32 matmul, measured.

    Infinite, so that utilisation shows as 0, for an accelerator that is not in the table.
    """
    device = jax.devices()[0]
    if chip := chip_of(device.device_kind):
        return chip.flops * jax.device_count()
    if device.platform != "cpu":
        return float("inf")
    n = 1024
    matmul = jax.jit(lambda x: x @ x)
    x = jnp.ones((n, n), jnp.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        matmul(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best  # of all host devices, which share the cores that one of them was timed on
