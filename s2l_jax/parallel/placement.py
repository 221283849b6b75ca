"""Models on a mesh: weights loaded or initialised straight into their sharding."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from s2l_jax.models import hf
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.parameters import (
    LOGICAL_AXES,
    Params,
    bind,
    init_params,
    model_params,
    nest_params,
    parameter_shapes,
    trained,
)
from s2l_jax.models.weights import load_params
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.sharding import parameter_sharding


def model_shardings(mesh: Mesh, config: DecoderConfig) -> dict[str, NamedSharding]:
    """The sharding of every parameter of a decoder, by path."""
    shapes = parameter_shapes(config)
    return {path: parameter_sharding(mesh, LOGICAL_AXES[path], shape) for path, shape in shapes.items()}


def load_model(path_or_hub_id: str, mesh: Mesh | None = None, dtype: Any = jnp.float32) -> Decoder:
    """A pretrained decoder from a directory in Hugging Face layout, or a hub id, its parameters in `dtype`.

    Args:
      path_or_hub_id: holds config.json and safetensors.
      mesh: where to put the weights; all devices on the `data` axis if absent.

    Raises:
      InputError: nothing there, an unsupported family, or weights that do not fit config.json.
    """
    directory = hf.resolve(path_or_hub_id)
    config = hf.load_config(directory)
    mesh = mesh or make_mesh()
    params = load_params(directory, config, dtype=dtype, shardings=model_shardings(mesh, config))
    return bind(config, params)


def mesh_of(model: Decoder) -> Mesh:
    """The mesh that a model's parameters lie on."""
    sharding = jax.tree.leaves(model_params(model))[0].sharding
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh
    return make_mesh(devices=list(sharding.device_set))


def random_params(config: DecoderConfig, mesh: Mesh, key: jax.Array) -> Params:
    """Fresh float32 parameters, initialised on the devices that will hold them."""
    shardings = nest_params(model_shardings(mesh, config))
    return jax.jit(init_params, static_argnums=0, out_shardings=shardings)(config, key)


def random_adapters(config: DecoderConfig, mesh: Mesh, key: jax.Array) -> Params:
    """Fresh float32 adapters of a decoder that has some, initialised on the devices that will hold them."""

    def init(key: jax.Array) -> Params:
        return trained(config, init_params(config, key))

    return jax.jit(init, out_shardings=adapter_shardings(config, mesh))(key)


def put_adapters(config: DecoderConfig, mesh: Mesh, adapters: Params) -> Params:
    """Adapters from the host, which every process has in full."""
    return jax.device_put(adapters, adapter_shardings(config, mesh))


def adapter_shardings(config: DecoderConfig, mesh: Mesh) -> Params:
    """The sharding of every adapter, nested as they are."""
    return trained(config, nest_params(model_shardings(mesh, config)))
