"""Fused attention kernels that are exact for packed rows: cuDNN's on NVIDIA GPUs, splash on TPUs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2l_jax.models.attention import Prefix, Window, visible_keys, with_prefix

_LANES = 128  # splash works on blocks of a multiple of this many tokens and head dimensions


def cudnn_attention(
    query: Float[Array, "b l h d"],
    key: Float[Array, "b l n d"],
    value: Float[Array, "b l n d"],
    *,
    segments: Int[Array, "b l"],
    window: Window,
    prefix: Prefix | None = None,
    implementation: Any = "cudnn",
) -> Float[Array, "b l h d"]:
    """`attention.attend` by cuDNN's flash attention (arXiv 2307.08691), in bfloat16.

    Segments and window are in a mask, for all that `jax.nn.dot_product_attention` can tell cuDNN of
    a row's inside is a length. The mask becomes a bias [b, 1, l, l] in bfloat16, shared by all heads,
    where plain XLA keeps scores [b, h, l, l] in float32; `is_causal` spares cuDNN the blocks above
    the diagonal. cuDNN wants an even length.
    """
    length, given = query.shape[1], query
    query, key, value = (_padded(x, 2) for x in (query, key, value))
    mask = visible_keys(_padded(segments, 2), window)[:, None]
    attention = functools.partial(
        jax.nn.dot_product_attention,
        query, key, value, mask=mask, is_causal=True, implementation=implementation,
    )  # fmt: skip
    if prefix is None:
        return attention()[:, :length]
    out, normaliser = attention(return_residual=True)
    return with_prefix(out[:, :length], normaliser[:, :length].astype(jnp.float32), given, prefix)


def splash_attention(
    query: Float[Array, "b l h d"],
    key: Float[Array, "b l n d"],
    value: Float[Array, "b l n d"],
    *,
    segments: Int[Array, "b l"],
    window: int | None,
    prefix: Prefix | None = None,
    interpret: bool = False,
) -> Float[Array, "b l h d"]:
    """`attention.attend` by JAX's splash kernel: no scores in memory, no work outside the window.

    The window must be a Python int: it decides which blocks the kernel visits. Lengths and head
    dimensions are padded to what the kernel takes; `interpret` runs it without a TPU, slowly.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads, dim = query.shape[1:]
    given = query
    query = (query.astype(jnp.float32) * dim**-0.5).astype(query.dtype)  # the kernel does not scale
    query, key, value = (_padded(_padded(x, _LANES), _LANES, axis=3) for x in (query, key, value))
    segments = _padded(segments, _LANES)
    shape = (query.shape[1], query.shape[1])
    mask = splash.CausalMask(shape) if window is None else splash.LocalMask(shape, (window - 1, 0), offset=0)
    block = max(size for size in (128, 256, 512) if shape[0] % size == 0)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    blocks: dict[str, Any] = dict.fromkeys(names, block)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(**blocks),
        head_shards=1,
        q_seq_shards=1,
        save_residuals=prefix is not None,
        interpret=interpret,
    )
    by_head = (x.swapaxes(1, 2) for x in (query, key, value))
    out = jax.vmap(kernel)(*by_head, splash.SegmentIds(segments, segments))
    if prefix is None:
        return out.swapaxes(1, 2)[:, :length, :, :dim]
    out, (normaliser,) = out
    attended = out.swapaxes(1, 2)[:, :length, :, :dim]
    return with_prefix(attended, normaliser.swapaxes(1, 2)[:, :length], given, prefix)


def _padded(x: Array, multiple: int, axis: int = 1) -> Array:
    """Zeros added at an axis's end: tokens of segment 0, which see each other alone, or dimensions."""
    extra = -x.shape[axis] % multiple
    return jnp.pad(x, [(0, extra if i == axis else 0) for i in range(x.ndim)]) if extra else x
