"""Where a program needs more memory than a device has: what takes it, and what to change."""

import collections
import contextlib
import math
from collections.abc import Iterator, Mapping

import jax
from ml_collections import ConfigDict

from s2l_jax.errors import InputError

_SHOWN = 5  # kinds of arrays
_PINS_ROWS = ("proxy", "sweep")


def advice(config: ConfigDict, what: str, held: Mapping[str, float], available: float) -> list[str]:
    """Changes that help, the likeliest first.

    Args:
      what: "proxy", "target" (their training), "sweep", "features" (hidden states and gradients), "theory"
        (a target and gradients) or "evaluation".
      held: bytes of a device: "parameters", "optimiser state", "temporaries", and others by their names.
      available: bytes that it has.
    """
    state = held.get("parameters", 0.0) + held.get("optimiser state", 0.0)
    found = []
    if (trained := {"theory": "target"}.get(what, what)) in ("proxy", "target"):
        train = config[trained].train
        if held.get("temporaries", 0.0) + state > available / 2:
            if train.remat != "full":
                found.append(f"--config.{trained}.train.remat=full (activations are computed again)")
            if train.accumulation < train.batch_size:
                found.append(
                    f"--config.{trained}.train.accumulation={2 * train.accumulation} (smaller microbatches)"
                )
        if state > available / 4:
            found.insert(0, "a larger mesh.fsdp, over which parameters and optimiser state are spread")
            if trained == "target" and not config.target.lora.rank:
                found.append("--config.target.lora.rank=16 (adapters alone are trained)")
    if what == "sweep":
        tokens = config.trajectories.batch_tokens or 16_384
        found.append(f"--config.trajectories.batch_tokens={tokens // 2}")
    if what == "features":
        for group in ("states", "gradients"):
            tokens = config.selection[group].batch_tokens
            found.append(f"--config.selection.{group}.batch_tokens={tokens // 2}")
        found.append(f"--config.selection.gradients.dims={config.selection.gradients.dims // 2}")
    if what == "theory":
        found.append(f"--config.analysis.batch_tokens={config.analysis.batch_tokens // 2}")
    if what == "evaluation":
        found.append(f"--config.evaluation.batch_size={max(1, config.evaluation.batch_size // 2)}")
        if config.evaluation.dtype == "float32":
            found.append("--config.evaluation.dtype=bfloat16")
        found.append("a larger mesh.fsdp or mesh.tensor, over which parameters are spread")
    if any(name.startswith("pinned") for name in held):
        found.append(
            f"--config.trajectories.pinned_mb={config.trajectories.pinned_mb // 4} (rows are streamed)"
        )
    return [*found, "more devices"]


@contextlib.contextmanager
def explained(config: ConfigDict, what: str) -> Iterator[None]:
    """Within it, running out of device memory is an InputError with the largest arrays and what to change.

    `what` is that of `advice`.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = str(error).partition("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
        arrays = ", ".join(_largest_arrays()) or "none"
        # What was there is known, and not what it was of: all changes that may help are named.
        held = {"temporaries": 1.0, "parameters": 1.0} | ({"pinned rows": 1.0} if what in _PINS_ROWS else {})
        changes = "; or ".join(advice(config, what, held, 1.0))
        raise InputError(
            f"{what}: a device has too little memory ({said}). Its largest arrays: {arrays}; what the "
            f"program itself needed comes on top. Change: {changes}."
        ) from error


def _largest_arrays() -> list[str]:
    """The arrays that are there, those of one shape together, by what a device has of them."""
    sizes: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    for array in jax.live_arrays():
        shape = array.sharding.shard_shape(array.shape)
        name = f"{array.dtype.name}[{','.join(map(str, shape))}]"
        sizes[name] += math.prod(shape) * array.dtype.itemsize
        counts[name] += 1
    return [f"{counts[name]} x {name} {size / 2**20:,.0f} MiB" for name, size in sizes.most_common(_SHOWN)]
