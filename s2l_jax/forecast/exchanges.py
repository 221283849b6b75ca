"""What programs exchange among devices by count, for topologies that they are not compiled for."""

import math

import numpy as np
from jax.sharding import Mesh

from s2l_jax.forecast.collectives import Collective
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import LOGICAL_AXES, abstract_params, flatten_params, num_trained
from s2l_jax.parallel.mesh import AXES


def of_passes(
    config: DecoderConfig,
    mesh: Mesh,
    width: int,
    *,
    tokens: int,
    gathers: int = 1,
    sums: int = 2,
    times: int = 1,
) -> list[Collective]:
    """Of passes over the layers.

    Args:
      width: bytes of a number in matrix products.
      tokens: that a row group works on at a time.
      gathers: how often all weights are put together for these tokens.
      sums: how often each layer adds up what the devices of `tensor` have: what attention makes, what the
        MLP makes, and as often backwards.
      times: microbatches.
    """
    found = []
    if mesh.shape["fsdp"] > 1:
        size = _spread_over_fsdp(config) * width / mesh.shape["tensor"]
        found.append(Collective("all-gather", size, _along(mesh, "fsdp"), gathers * times))
    if mesh.shape["tensor"] > 1:
        size = tokens * config.hidden_size * width
        times *= config.num_layers * sums
        found.append(Collective("all-reduce", size, _along(mesh, "tensor"), times))
    return found


def of_gradients(config: DecoderConfig, mesh: Mesh, width: int, times: int) -> list[Collective]:
    """Of the gradients of what is trained, in each of `times` microbatches."""
    data, fsdp, tensor = (mesh.shape[axis] for axis in AXES)
    size, found = num_trained(config) * width / tensor, []
    if fsdp > 1:
        found.append(Collective("reduce-scatter", size, _along(mesh, "fsdp"), times))
    if data > 1:
        found.append(Collective("all-reduce", size / fsdp, _along(mesh, "data"), times))
    return found


def _spread_over_fsdp(config: DecoderConfig) -> int:
    """Numbers in the matrices that lie over `fsdp`."""
    params = flatten_params(abstract_params(config))
    return sum(math.prod(leaf.shape) for path, leaf in params.items() if "embed" in LOGICAL_AXES[path])


def _along(mesh: Mesh, axis: str) -> tuple[int, ...]:
    """The places, in the order of the mesh, of the first group of devices along an axis."""
    places = np.arange(mesh.size).reshape([mesh.shape[name] for name in AXES])
    return tuple(np.moveaxis(places, AXES.index(axis), -1).reshape(-1, mesh.shape[axis])[0].tolist())
