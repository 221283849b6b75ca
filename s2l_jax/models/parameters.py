"""The decoder's parameters as trees of arrays: their paths, shapes and logical axes."""

import functools
import math
from typing import Any

import jax
from flax import nnx, traverse_util

from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.decoder import Decoder

Params = dict[str, Any]  # nested dict of arrays, the pure-dict form of the module's state

_Axes = tuple[str | None, ...]
# The projections of a layer: logical axes of their inputs and outputs.
_PROJECTIONS: dict[str, tuple[_Axes, _Axes]] = {
    "attention/query": (("embed",), ("heads", None)),
    "attention/key": (("embed",), ("kv_heads", None)),
    "attention/value": (("embed",), ("kv_heads", None)),
    "attention/out": (("heads", None), ("embed",)),
    "mlp/gate": (("embed",), ("mlp",)),
    "mlp/up": (("embed",), ("mlp",)),
    "mlp/down": (("mlp",), ("embed",)),
}


def _logical_axes() -> dict[str, _Axes]:
    axes: dict[str, _Axes] = {
        "embed/embedding": ("vocab", "embed"),
        "embed_positions/embedding": (None, "embed"),
        "final_norm/scale": (None,),
        "final_norm/bias": (None,),
        "lm_head/kernel": ("embed", "vocab"),
        "lm_head/bias": ("vocab",),
    }
    norms = ["attention_norm/scale", "attention_norm/bias", "mlp_norm/scale", "mlp_norm/bias"]
    norms += ["attention/query_norm/scale", "attention/key_norm/scale"]
    axes |= {f"layers/{norm}": ("layers", None) for norm in norms}
    for name, (inputs, outputs) in _PROJECTIONS.items():
        axes |= {
            f"layers/{name}/kernel": ("layers", *inputs, *outputs),
            f"layers/{name}/bias": ("layers", *(None if axis == "embed" else axis for axis in outputs)),
            f"layers/{name}/lora/a": ("layers", *inputs, None),
            f"layers/{name}/lora/b": ("layers", None, *outputs),
        }
    return axes


# Logical axes of every parameter; `parallel.sharding` maps them to mesh axes.
LOGICAL_AXES = _logical_axes()


@functools.lru_cache
def abstract_decoder(config: DecoderConfig, *, stacked: bool = True) -> tuple[nnx.GraphDef, nnx.State]:
    """The module's structure and the shapes of its parameters, without allocating any."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), stacked=stacked)))


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter in memory by its path, such as `layers/mlp/up/kernel`."""
    return {path: leaf.shape for path, leaf in flatten_params(abstract_params(config)).items()}


def stored_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter on disk: the vocabulary without its padding."""
    return {
        path: tuple(
            config.vocab_size if axis == "vocab" else size
            for axis, size in zip(LOGICAL_AXES[path], shape, strict=True)
        )
        for path, shape in parameter_shapes(config).items()
    }


def num_parameters(config: DecoderConfig) -> int:
    """How many numbers the model has."""
    return sum(map(math.prod, stored_shapes(config).values()))


def num_trained(config: DecoderConfig) -> int:
    """How many of them training changes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained(config, abstract_params(config))))


def abstract_params(config: DecoderConfig) -> Params:
    """Shapes and dtypes of the parameters, as a nested dict."""
    return nnx.to_pure_dict(abstract_decoder(config)[1])


def trained(config: DecoderConfig, params: Params) -> Params:
    """What training changes of a tree laid out as the parameters: all of it, or the adapters alone."""
    if config.lora is None:
        return params
    return nest_params({path: leaf for path, leaf in flatten_params(params).items() if "/lora/" in path})


def joined(frozen: Params | None, params: Params) -> Params:
    """The whole of a model from what training leaves as it is (None: nothing) and what it changes."""
    return nest_params(flatten_params(frozen or {}) | flatten_params(params))


def flatten_params(params: Params) -> dict[str, Any]:
    """`{"a": {"b": x}}` as `{"a/b": x}`."""
    return traverse_util.flatten_dict(params, sep="/")


def nest_params(flat: dict[str, Any]) -> Params:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    return traverse_util.unflatten_dict(flat, sep="/")


def unstacked(config: DecoderConfig, params: Params) -> Params:
    """The same parameters with `layers` by number, for a decoder whose layers are apart."""
    by_layer = {n: jax.tree.map(lambda x, n=n: x[n], params["layers"]) for n in range(config.num_layers)}
    return params | {"layers": by_layer}


def bind(config: DecoderConfig, params: Params) -> Decoder:
    """A module that holds `params` (a nested dict of arrays, possibly traced), stacked or not."""
    graphdef, abstract = abstract_decoder(config, stacked=0 not in params["layers"])
    return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(abstract), jax.tree.leaves(params)))


def init_params(config: DecoderConfig, key: jax.Array) -> Params:
    """Freshly initialised float32 parameters; jit it with out_shardings to initialise in place."""
    return model_params(Decoder(config, nnx.Rngs(key)))


def model_params(model: Decoder) -> Params:
    """The parameters a module holds, as a nested dict of arrays."""
    return nnx.to_pure_dict(nnx.split(model)[1])
