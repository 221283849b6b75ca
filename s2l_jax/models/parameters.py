"""The decoder's parameters as trees of arrays: their paths, shapes and logical axes."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.decoder import Decoder

Params = dict[str, Any]  # nested dict of arrays, the pure-dict form of the module's state

# Logical axes of every parameter; `parallel.sharding` maps them to mesh axes.
LOGICAL_AXES: dict[str, tuple[str | None, ...]] = {
    "embed/embedding": ("vocab", "embed"),
    "embed_positions/embedding": (None, "embed"),
    "layers/attention_norm/scale": ("layers", None),
    "layers/attention_norm/bias": ("layers", None),
    "layers/attention/query/kernel": ("layers", "embed", "heads", None),
    "layers/attention/query/bias": ("layers", "heads", None),
    "layers/attention/query_norm/scale": ("layers", None),
    "layers/attention/key/kernel": ("layers", "embed", "kv_heads", None),
    "layers/attention/key/bias": ("layers", "kv_heads", None),
    "layers/attention/key_norm/scale": ("layers", None),
    "layers/attention/value/kernel": ("layers", "embed", "kv_heads", None),
    "layers/attention/value/bias": ("layers", "kv_heads", None),
    "layers/attention/out/kernel": ("layers", "heads", None, "embed"),
    "layers/attention/out/bias": ("layers", None),
    "layers/mlp_norm/scale": ("layers", None),
    "layers/mlp_norm/bias": ("layers", None),
    "layers/mlp/gate/kernel": ("layers", "embed", "mlp"),
    "layers/mlp/gate/bias": ("layers", "mlp"),
    "layers/mlp/up/kernel": ("layers", "embed", "mlp"),
    "layers/mlp/up/bias": ("layers", "mlp"),
    "layers/mlp/down/kernel": ("layers", "mlp", "embed"),
    "layers/mlp/down/bias": ("layers", None),
    "final_norm/scale": (None,),
    "final_norm/bias": (None,),
    "lm_head/kernel": ("embed", "vocab"),
    "lm_head/bias": ("vocab",),
    "layers/attention/query/lora/a": ("layers", "embed", None),
    "layers/attention/query/lora/b": ("layers", None, "heads", None),
    "layers/attention/key/lora/a": ("layers", "embed", None),
    "layers/attention/key/lora/b": ("layers", None, "kv_heads", None),
    "layers/attention/value/lora/a": ("layers", "embed", None),
    "layers/attention/value/lora/b": ("layers", None, "kv_heads", None),
    "layers/attention/out/lora/a": ("layers", "heads", None, None),
    "layers/attention/out/lora/b": ("layers", None, "embed"),
    "layers/mlp/gate/lora/a": ("layers", "embed", None),
    "layers/mlp/gate/lora/b": ("layers", None, "mlp"),
    "layers/mlp/up/lora/a": ("layers", "embed", None),
    "layers/mlp/up/lora/b": ("layers", None, "mlp"),
    "layers/mlp/down/lora/a": ("layers", "mlp", None),
    "layers/mlp/down/lora/b": ("layers", None, "embed"),
}


@functools.lru_cache
def abstract_decoder(config: DecoderConfig, *, stacked: bool = True) -> tuple[nnx.GraphDef, nnx.State]:
    """The module's structure and the shapes of its parameters, without allocating any."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), stacked=stacked)))


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter in memory by its path, such as `layers/mlp/up/kernel`."""
    _, state = abstract_decoder(config)
    return {path: leaf.shape for path, leaf in flatten_params(nnx.to_pure_dict(state)).items()}


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
    shapes = parameter_shapes(config).items()
    return nest_params({p: jax.ShapeDtypeStruct(shape, jnp.float32) for p, shape in shapes})


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
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(str(k.key) for k in path): leaf for path, leaf in flat}


def nest_params(flat: dict[str, Any]) -> Params:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    nested: Params = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return nested


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
    return nnx.to_pure_dict(nnx.split(Decoder(config, nnx.Rngs(key)))[1])


def model_params(model: Decoder) -> Params:
    """The parameters a module holds, as a nested dict of arrays."""
    return nnx.to_pure_dict(nnx.split(model)[1])
