"""Llama and what is built like it: Mistral, Qwen2, Qwen3, Gemma, and Phi-3 with its fused matrices."""

from typing import Any

from s2l_jax.errors import InputError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.families.fields import Fields, read_common, read_head_dim, read_windows
from s2l_jax.models.families.layout import HFTensor, copy, head, linear, matrices, norm
from s2l_jax.models.families.registry import FAMILIES, Family


def llama(fields: Fields) -> DecoderConfig:
    """Llama 1 to 3 (arXiv 2302.13971, 2407.21783)."""
    bias = fields.get("attention_bias", False)
    return _settings(
        fields,
        "llama",
        max_positions=2048,
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=fields.get("mlp_bias", False),
    )


def mistral(fields: Fields) -> DecoderConfig:
    """Mistral: Llama with a sliding window (arXiv 2310.06825)."""
    if mixed := {*fields.get("layer_types", [])} - {"sliding_attention"}:
        raise InputError(f"layer_types has {sorted(mixed)}; every layer of a mistral has the same window.")
    # Null turns the window off; a config that does not speak of it has the default.
    window = fields.get("sliding_window", 4096 if "sliding_window" not in fields else 0)
    layers = fields["num_hidden_layers"]
    return _settings(
        fields, "mistral", max_positions=131072, kv_heads=8, windows=(window,) * layers if window else ()
    )


def qwen2(fields: Fields) -> DecoderConfig:
    """Qwen2 and Qwen2.5: biases on queries, keys and values (arXiv 2407.10671)."""
    windows = read_windows(fields, used=fields.get("use_sliding_window", False), first=28)
    return _settings(fields, "qwen2", max_positions=32768, kv_heads=32, qkv_bias=True, windows=windows)


def qwen3(fields: Fields) -> DecoderConfig:
    """Qwen3: queries and keys are normalised per head (arXiv 2505.09388)."""
    bias = fields.get("attention_bias", False)
    return _settings(
        fields,
        "qwen3",
        max_positions=32768,
        head_dim=128,
        kv_heads=32,
        query_key_norm=True,
        qkv_bias=bias,
        out_bias=bias,
        windows=read_windows(fields, used=fields.get("use_sliding_window", False), first=28),
    )


def gemma(fields: Fields) -> DecoderConfig:
    """Gemma 1: norms around 1, scaled embeddings (arXiv 2403.08295)."""
    fields.require("use_bidirectional_attention", False)
    bias = fields.get("attention_bias", False)
    # Configs of the first release say "gelu" and mean the approximation that the model was trained with.
    act = fields.get("hidden_act", "gelu_pytorch_tanh")
    act = fields.get("hidden_activation", "gelu_pytorch_tanh" if act == "gelu" else act)
    return _settings(
        fields,
        "gemma",
        max_positions=8192,
        head_dim=256,
        kv_heads=16,
        activation=act,
        norm_offset=1.0,
        embedding_multiplier=fields["hidden_size"] ** 0.5,
        tied=True,
        qkv_bias=bias,
        out_bias=bias,
    )


def phi3(fields: Fields) -> DecoderConfig:
    """Phi-3 and Phi-4 mini: Llama with fused projections (arXiv 2404.14219)."""
    fields.note_dropout("embd_pdrop", "resid_pdrop")
    return _settings(fields, "phi3", max_positions=4096, windows=read_windows(fields), norm_eps=1e-5)


def _settings(
    fields: Fields,
    family: str,
    *,
    max_positions: int,
    kv_heads: int = 0,
    head_dim: int = 0,
    norm_eps: float = 1e-6,
    activation: str = "",
    tied: bool = False,
    **options: Any,
) -> DecoderConfig:
    """What these families share; the arguments are what sets one apart, or its defaults."""
    fields.note_dropout("attention_dropout")
    heads = fields["num_attention_heads"]
    dim = read_head_dim(fields) if fields.get("head_dim", 0) or not head_dim else head_dim
    common = read_common(fields, dim, max_positions=max_positions, tied=tied)
    rotary_dim, scaling = common["rotary_dim"], common["rope_scaling"]
    if rotary_dim != dim and family != "phi3":
        raise InputError(f"a partial rotary factor ({rotary_dim} of {dim} dimensions) is not {family}'s.")
    if scaling is not None and family == "phi3":
        raise InputError(f"rope type {scaling.kind!r} is not supported for phi3.")
    activation = activation or fields.get("hidden_act", "silu")
    unnamed_kv = kv_heads if kv_heads and "num_key_value_heads" not in fields else heads
    without = dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), False)
    return DecoderConfig(
        family=family,
        num_kv_heads=fields.get("num_key_value_heads", unnamed_kv),
        norm="rms",
        norm_eps=fields.get("rms_norm_eps", norm_eps),
        activation=activation,
        gated_mlp=True,
        **common,
        **without | options,
    )


def tensors(config: DecoderConfig) -> list[HFTensor]:
    """Weight names and layouts."""
    hidden, inner = (config.hidden_size,), (config.intermediate_size,)
    heads, shared = (config.num_heads, config.head_dim), (config.num_kv_heads, config.head_dim)
    layer, attention, mlp = "model.layers.{layer}", "layers/attention", "layers/mlp"
    table = [
        copy("model.embed_tokens.weight", "embed/embedding"),
        *norm(config, f"{layer}.input_layernorm", "layers/attention_norm"),
        *norm(config, f"{layer}.post_attention_layernorm", "layers/mlp_norm"),
        *norm(config, "model.norm", "final_norm"),
        *head(config, "lm_head"),
    ]
    if config.query_key_norm:
        table += norm(config, f"{layer}.self_attn.q_norm", f"{attention}/query_norm")
        table += norm(config, f"{layer}.self_attn.k_norm", f"{attention}/key_norm")
    if config.family == "phi3":  # without biases, and with fused matrices
        projections = tuple(f"{attention}/{p}/kernel" for p in ("query", "key", "value"))
        qkv = [matrices(f"{layer}.self_attn.qkv_proj.weight", projections, hidden, (heads, shared, shared))]
        gates = (f"{mlp}/gate/kernel", f"{mlp}/up/kernel")
        gate_up = [matrices(f"{layer}.mlp.gate_up_proj.weight", gates, hidden, (inner, inner))]
    else:
        qkv = [
            *linear(f"{layer}.self_attn.q_proj", f"{attention}/query", hidden, heads, bias=config.qkv_bias),
            *linear(f"{layer}.self_attn.k_proj", f"{attention}/key", hidden, shared, bias=config.qkv_bias),
            *linear(f"{layer}.self_attn.v_proj", f"{attention}/value", hidden, shared, bias=config.qkv_bias),
        ]
        gate_up = [
            *linear(f"{layer}.mlp.gate_proj", f"{mlp}/gate", hidden, inner, bias=config.mlp_bias),
            *linear(f"{layer}.mlp.up_proj", f"{mlp}/up", hidden, inner, bias=config.mlp_bias),
        ]
    return [
        *table,
        *qkv,
        *linear(f"{layer}.self_attn.o_proj", f"{attention}/out", heads, hidden, bias=config.out_bias),
        *gate_up,
        *linear(f"{layer}.mlp.down_proj", f"{mlp}/down", inner, hidden, bias=config.mlp_bias),
    ]


FAMILIES.enter("gemma", Family("GemmaForCausalLM", gemma, tensors))
FAMILIES.enter("llama", Family("LlamaForCausalLM", llama, tensors))
FAMILIES.enter("mistral", Family("MistralForCausalLM", mistral, tensors))
FAMILIES.enter("phi3", Family("Phi3ForCausalLM", phi3, tensors))
FAMILIES.enter("qwen2", Family("Qwen2ForCausalLM", qwen2, tensors))
FAMILIES.enter("qwen3", Family("Qwen3ForCausalLM", qwen3, tensors))
