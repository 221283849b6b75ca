"""The settings of the decoder: what a family of models is, said in numbers and switches."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from s2l_jax.models.lora import Lora

# Embedding rows are padded to a multiple of this: matrix units like it, and every usual mesh divides it.
VOCAB_MULTIPLE = 128


def _gelu(x: jax.Array) -> jax.Array:
    """GELU (arXiv 1606.08415), in float32 by erf as in PyTorch: `jax.nn.gelu` takes erfc, slow on CPUs."""
    if x.dtype != jnp.float32:  # where 1 + erf would be rounded too coarsely
        return jax.nn.gelu(x, approximate=False)
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": _gelu,
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_fast": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of pretraining.

    "linear" divides all by `factor` (arXiv 2306.15595). "llama3" divides those whose wavelength is
    above original_positions / low_freq_factor, keeps those below original_positions /
    high_freq_factor, and blends between the two (Llama 3.1).
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192  # tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Settings of the decoder; `models.families` derives them from a Hugging Face config.json."""

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int  # each serves num_heads / num_kv_heads query heads
    head_dim: int
    intermediate_size: int
    max_positions: int  # longest context the position encoding was made for, tokens
    rotary_dim: int = 0  # leading dimensions of each head that are rotated; 0: learned positions
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    windows: tuple[int, ...] = ()  # per layer: tokens a query sees, itself included; 0: all. (): all
    norm: str = "layer"  # or "rms"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0  # added to the stored scale of norms
    activation: str = "gelu"
    gated_mlp: bool = False
    parallel_residual: bool = False  # attention and MLP read the same residual stream
    shared_norm: bool = False  # and do so through one norm
    query_key_norm: bool = False  # queries and keys are normalised per head
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = False
    tied_embeddings: bool = False
    embedding_multiplier: float = 1.0
    initializer_range: float = 0.02  # standard deviation of freshly initialised matrices
    lora: Lora | None = None  # adapters beside the projections; they alone are trained

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding in memory; those past `vocab_size` are never looked up or predicted."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
