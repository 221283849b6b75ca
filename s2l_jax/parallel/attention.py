"""How attention is computed on a mesh: by a fused kernel where one is exact and works, else by plain XLA."""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from s2l_jax.console import say
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import Attend, Prefix, Window, attend
from s2l_jax.models.fused_attention import cudnn_attention, splash_attention
from s2l_jax.parallel.mesh import ROW_AXES

KERNELS: dict[str, Attend] = {"xla": attend, "cudnn": cudnn_attention, "splash": splash_attention}
_TOLERANCE = 0.03  # relative error that bfloat16 explains; a leak between segments is of order 1


class Choice(NamedTuple):
    """A kernel of KERNELS, and why no other."""

    kernel: str
    reason: str = ""


@functools.lru_cache(maxsize=32)
def attention_on(mesh: Mesh, config: DecoderConfig, dtype: Any, wanted: str = "auto") -> Attend:
    """The attention of a decoder whose rows and heads lie on a mesh; `dtype` is that of the activations.

    A fused kernel is first run on a small packed row and compared with plain XLA; where it fails, or
    differs, or "xla" is `wanted`, plain XLA is used and the user told. All processes choose alike.
    """
    device = mesh.devices.flat[0]
    if wanted == "xla" or device.platform not in ("gpu", "tpu"):
        return attend
    choice = choose(
        config,
        dtype,
        platform=device.platform,
        capability=getattr(device, "compute_capability", ""),
        tensor=mesh.shape["tensor"],
    )
    if choice.kernel != "xla":
        # Devices of a topology that programs are only compiled for cannot run the check.
        mine = [d for d in mesh.devices.flat if d in jax.local_devices()]
        fault = check(choice.kernel, config, mine[0]) if mine else ""
        if not np.all(multihost_utils.process_allgather(np.array(not fault))):
            choice = Choice("xla", f"{choice.kernel} fails here: {fault or 'on another process'}")
    why = f", as {choice.reason}" if choice.reason else ""
    say(f"attention in {jnp.dtype(dtype).name}: {choice.kernel}{why}")
    return attend if choice.kernel == "xla" else over_mesh(KERNELS[choice.kernel], mesh)


def choose(config: DecoderConfig, dtype: Any, *, platform: str, capability: str, tensor: int) -> Choice:
    """The kernel for a decoder on a kind of device; a pure function.

    Args:
      dtype: of the activations.
      platform: "gpu", "tpu" or "cpu".
      capability: of an NVIDIA GPU, as "9.0"; other GPUs have other words there, or none.
      tensor: devices that heads are spread over.
    """
    if jnp.dtype(dtype) != jnp.bfloat16:
        return Choice("xla", "fused kernels work in bfloat16")
    if config.num_kv_heads % tensor:
        return Choice("xla", f"{config.num_kv_heads} key heads do not divide over mesh.tensor={tensor}")
    if platform == "tpu":
        if len(set(config.windows)) > 1:
            return Choice("xla", "splash needs the same window in every layer")
        return Choice("splash")
    if platform != "gpu":
        return Choice("xla", f"there is no fused kernel for {platform}")
    found = re.fullmatch(r"(\d+)\.(\d+)", capability)
    if not found or int(found[1]) < 8:
        return Choice("xla", "cuDNN's needs an NVIDIA GPU of compute capability 8.0 or above")
    largest = 256 if int(found[1]) >= 9 else 128
    if config.head_dim % 8 or config.head_dim > largest:
        return Choice("xla", f"cuDNN's needs heads of at most {largest} dimensions, a multiple of 8")
    return Choice("cudnn")


def over_mesh(kernel: Attend, mesh: Mesh) -> Attend:
    """A kernel run by each device on its own rows and heads: XLA cannot split a kernel by itself."""
    rows, split = P(ROW_AXES), P(ROW_AXES, None, "tensor")

    def sharded(
        query: Float[Array, "b l h d"],
        key: Float[Array, "b l n d"],
        value: Float[Array, "b l n d"],
        *,
        segments: Int[Array, "b l"],
        window: Window,
        prefix: Prefix | None = None,
    ) -> Float[Array, "b l h d"]:
        traced = () if window is None or isinstance(window, int) else (window,)

        def local(q, k, v, segments, prefix, *traced):
            seen = traced[0] if traced else window
            return kernel(q, k, v, segments=segments, window=seen, prefix=prefix)

        specs = (split, split, split, rows, P(None, "tensor"), *(P() for _ in traced))
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        return mapped(query, key, value, segments, prefix, *traced)

    return sharded


def check(kernel: str, config: DecoderConfig, device: jax.Device) -> str:
    """What is wrong with a kernel on a device, for heads as a decoder has them; "" for nothing."""
    rng = np.random.default_rng(0)
    groups = config.num_heads // config.num_kv_heads
    segments = np.repeat([1, 2, 3, 0], [100, 57, 70, 29])[None].astype(np.int32)
    shapes = [(1, 256, heads, config.head_dim) for heads in (groups, 1, 1, groups)]
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]
    inputs = jax.device_put((*arrays, segments), device)
    window = 40 if any(config.windows) else None

    def outputs(name: str) -> tuple[jax.Array, ...]:
        @jax.jit
        def run(q: Array, k: Array, v: Array, weights: Array, segments: Array) -> tuple[jax.Array, ...]:
            out, pull = jax.vjp(lambda *x: KERNELS[name](*x, segments=segments, window=window), q, k, v)
            return out, *pull(weights)

        return run(*inputs)

    try:
        got, want = ([np.asarray(x, np.float32) for x in outputs(name)] for name in (kernel, "xla"))
    except Exception as error:  # whatever driver, library and compiler raise
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    for what, ours, reference in zip(("output", "dq", "dk", "dv"), got, want, strict=True):
        off = float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))
        if not off <= _TOLERANCE:
            return f"its {what} is off by {off:.2g} of its norm"
    return ""
