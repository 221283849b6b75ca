"""What sets model families apart: their Hugging Face config fields, weight names and layouts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from s2l_jax.errors import InputError
from s2l_jax.models.decoder import ACTIVATIONS, DecoderConfig

HFConfig = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class HFTensor:
    """One tensor of a Hugging Face checkpoint and the decoder parameters it holds.

    `name` and `leaves` of a tensor that every layer has contain `{layer}` and `layers/`; `split`
    turns one such tensor into that layer's slice of each leaf, and `join` is its inverse.
    """

    name: str
    leaves: tuple[str, ...]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    join: Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Family:
    """How one `model_type` is read: its settings, its tensors, and buffers to pass over."""

    architecture: str
    decoder_config: Callable[[HFConfig], DecoderConfig]
    tensors: Callable[[DecoderConfig], list[HFTensor]]
    buffers: tuple[str, ...]  # suffixes of tensors that hub checkpoints carry and nothing needs


def decoder_config(config: HFConfig, place: str) -> DecoderConfig:
    """Settings of the decoder for a parsed config.json; `place` names it in errors.

    Raises:
      InputError: unknown `model_type`, or an option of a known one that is not supported.
    """
    kind = family(config, place)
    try:
        settings = kind.decoder_config(config)
    except KeyError as missing:
        raise InputError(f"{place}: the field {missing} is missing.") from None
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    if settings.activation not in ACTIVATIONS:
        raise InputError(
            f"{place}: activation {settings.activation!r} is not supported; known: "
            f"{', '.join(sorted(ACTIVATIONS))}."
        )
    return settings


def family(config: HFConfig, place: str) -> Family:
    """The family of a parsed config.json."""
    model_type = config.get("model_type", "")
    if model_type not in FAMILIES:
        raise InputError(
            f"{place}: model_type {model_type!r} is not supported; supported: {', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[model_type]


def _copy(name: str, leaf: str) -> HFTensor:
    return HFTensor(name, (leaf,), lambda w: (w,), lambda w: w)


def _matrix(name: str, leaf: str, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> HFTensor:
    """A torch Linear weight [out, in] and its [*in_shape, *out_shape] kernel."""
    rows = int(np.prod(out_shape))
    return HFTensor(
        name,
        (leaf,),
        lambda w: (w.T.reshape(*in_shape, *out_shape),),
        lambda kernel: kernel.reshape(-1, rows).T,
    )


def _norm(name: str, leaf: str) -> list[HFTensor]:
    return [_copy(f"{name}.weight", f"{leaf}/scale"), _copy(f"{name}.bias", f"{leaf}/bias")]


def _gpt_neox_config(config: HFConfig) -> DecoderConfig:
    if config["hidden_size"] % config["num_attention_heads"]:
        raise InputError(
            f"hidden_size {config['hidden_size']} does not divide into "
            f"{config['num_attention_heads']} attention heads."
        )
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    # transformers 5 writes rope_parameters; configs on the hub carry the older flat fields.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InputError(f"rope type {kind!r} is not supported for gpt_neox.")
    for field in ("attention_dropout", "hidden_dropout"):
        if config.get(field, 0.0):
            raise InputError(f"{field}={config[field]} is not supported; set it to 0.")
    fraction = rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
    theta: Any = rope.get("rope_theta", config.get("rotary_emb_base", 10000))
    return DecoderConfig(
        family="gpt_neox",
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        head_dim=head_dim,
        intermediate_size=config["intermediate_size"],
        max_positions=config.get("max_position_embeddings", 2048),
        rotary_dim=int(head_dim * fraction),
        rope_theta=float(theta),
        norm_eps=config.get("layer_norm_eps", 1e-5),
        activation=config.get("hidden_act", "gelu"),
        parallel_residual=config.get("use_parallel_residual", True),
        attention_bias=config.get("attention_bias", True),
        tied_embeddings=config.get("tie_word_embeddings", False),
        initializer_range=config.get("initializer_range", 0.02),
    )


def _gpt_neox_tensors(config: DecoderConfig) -> list[HFTensor]:
    hidden, heads, dim = config.hidden_size, config.num_heads, config.head_dim
    attention = "layers/attention"
    projections = tuple(f"{attention}/{p}" for p in ("query", "key", "value"))

    def split_weight(w: np.ndarray) -> tuple[np.ndarray, ...]:
        # Rows are ordered head, then query/key/value, then dimension.
        fused = w.reshape(heads, 3, dim, hidden)
        return tuple(fused[:, i].transpose(2, 0, 1) for i in range(3))

    def join_weight(*kernels: np.ndarray) -> np.ndarray:
        return np.stack([k.transpose(1, 2, 0) for k in kernels], axis=1).reshape(-1, hidden)

    def split_bias(b: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(b.reshape(heads, 3, dim)[:, i] for i in range(3))

    layer = "gpt_neox.layers.{layer}"
    fused = f"{layer}.attention.query_key_value"
    tensors = [
        _copy("gpt_neox.embed_in.weight", "embed/embedding"),
        *_norm(f"{layer}.input_layernorm", "layers/attention_norm"),
        *_norm(f"{layer}.post_attention_layernorm", "layers/mlp_norm"),
        HFTensor(f"{fused}.weight", tuple(f"{p}/kernel" for p in projections), split_weight, join_weight),
        _matrix(f"{layer}.attention.dense.weight", f"{attention}/out/kernel", (heads, dim), (hidden,)),
        _matrix(
            f"{layer}.mlp.dense_h_to_4h.weight",
            "layers/mlp/up/kernel",
            (hidden,),
            (config.intermediate_size,),
        ),
        _copy(f"{layer}.mlp.dense_h_to_4h.bias", "layers/mlp/up/bias"),
        _matrix(
            f"{layer}.mlp.dense_4h_to_h.weight",
            "layers/mlp/down/kernel",
            (config.intermediate_size,),
            (hidden,),
        ),
        _copy(f"{layer}.mlp.dense_4h_to_h.bias", "layers/mlp/down/bias"),
        *_norm("gpt_neox.final_layer_norm", "final_norm"),
    ]
    if config.attention_bias:
        tensors += [
            HFTensor(
                f"{fused}.bias",
                tuple(f"{p}/bias" for p in projections),
                split_bias,
                lambda *biases: np.stack(biases, axis=1).reshape(-1),
            ),
            _copy(f"{layer}.attention.dense.bias", f"{attention}/out/bias"),
        ]
    if not config.tied_embeddings:
        tensors.append(_matrix("embed_out.weight", "lm_head/kernel", (hidden,), (config.vocab_size,)))
    return tensors


FAMILIES: dict[str, Family] = {
    "gpt_neox": Family(
        architecture="GPTNeoXForCausalLM",
        decoder_config=_gpt_neox_config,
        tensors=_gpt_neox_tensors,
        buffers=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
    ),
}
