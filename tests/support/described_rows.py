"""A small model and a batch for it as shapes and shardings, for programs that are only compiled."""

import jax
import jax.numpy as jnp

from s2l_jax.data.packing import PackedRows
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import row_sharding

ROWS, LENGTH, TOKENS, EXAMPLES = 2, 48, 40, 4
CONFIG = DecoderConfig(
    family="llama", vocab_size=1024, hidden_size=64, intermediate_size=96, num_layers=3, num_heads=4,
    num_kv_heads=2, head_dim=16, max_positions=LENGTH, rotary_dim=16,
)  # fmt: skip


def described_rows(mesh):
    """One microbatch of `ROWS` rows a group."""

    def held(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct((1, row_groups(mesh), *shape), dtype, sharding=row_sharding(mesh, 1))

    texts, flat = held(ROWS, LENGTH), held(TOKENS)
    mask, weights = held(TOKENS, dtype=jnp.bool_), held(EXAMPLES, dtype=jnp.float32)
    return PackedRows(texts, texts, texts, flat, flat, flat, mask, weights)
