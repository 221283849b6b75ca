"""Phi-1, Phi-1.5 and Phi-2: parallel residual through one norm, biases everywhere."""

from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.families.fields import Fields, read_common, read_head_dim
from s2l_jax.models.families.layout import HFTensor, copy, head, linear, norm
from s2l_jax.models.families.registry import FAMILIES, Family


def settings(fields: Fields) -> DecoderConfig:
    """What a Phi config.json says."""
    fields.note_dropout("attention_dropout", "embd_pdrop", "resid_pdrop")
    fields.require("qk_layernorm", False)
    return DecoderConfig(
        family="phi",
        **read_common(fields, read_head_dim(fields), max_positions=2048, rotary=0.5),
        num_kv_heads=fields.get("num_key_value_heads", fields["num_attention_heads"]),
        norm_eps=fields.get("layer_norm_eps", 1e-5),
        activation=fields.get("hidden_act", "gelu_new"),
        parallel_residual=True,
        shared_norm=True,
        head_bias=True,
    )


def tensors(config: DecoderConfig) -> list[HFTensor]:
    """Weight names and layouts."""
    hidden, inner = (config.hidden_size,), (config.intermediate_size,)
    heads, shared = (config.num_heads, config.head_dim), (config.num_kv_heads, config.head_dim)
    layer, attention = "model.layers.{layer}", "layers/attention"
    return [
        copy("model.embed_tokens.weight", "embed/embedding"),
        *norm(config, f"{layer}.input_layernorm", "layers/attention_norm"),
        *linear(f"{layer}.self_attn.q_proj", f"{attention}/query", hidden, heads, bias=True),
        *linear(f"{layer}.self_attn.k_proj", f"{attention}/key", hidden, shared, bias=True),
        *linear(f"{layer}.self_attn.v_proj", f"{attention}/value", hidden, shared, bias=True),
        *linear(f"{layer}.self_attn.dense", f"{attention}/out", heads, hidden, bias=True),
        *linear(f"{layer}.mlp.fc1", "layers/mlp/up", hidden, inner, bias=True),
        *linear(f"{layer}.mlp.fc2", "layers/mlp/down", inner, hidden, bias=True),
        *norm(config, "model.final_layernorm", "final_norm"),
        *head(config, "lm_head"),
    ]


FAMILIES.enter("phi", Family("PhiForCausalLM", settings, tensors))
