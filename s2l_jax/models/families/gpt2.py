"""GPT-2: learned positions, tied embeddings, matrices stored as [in, out]."""

import functools

from s2l_jax.errors import InputError
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.families.fields import Fields
from s2l_jax.models.families.layout import HFTensor, copy, head, linear, matrices, norm
from s2l_jax.models.families.registry import FAMILIES, Family


def settings(fields: Fields) -> DecoderConfig:
    """What a GPT-2 config.json says."""
    fields.note_dropout("attn_pdrop", "embd_pdrop", "resid_pdrop")
    fields.require("scale_attn_weights", True)
    fields.require("scale_attn_by_inverse_layer_idx", False)
    fields.require("add_cross_attention", False)
    fields.get("reorder_and_upcast_attn", False)  # softmax is in float32 either way
    hidden, heads = fields["n_embd"], fields["n_head"]
    if hidden % heads:
        raise InputError(f"n_embd {hidden} does not divide into n_head {heads}.")
    return DecoderConfig(
        family="gpt2",
        vocab_size=fields["vocab_size"],
        hidden_size=hidden,
        num_layers=fields["n_layer"],
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=fields.get("n_inner", 4 * hidden),
        max_positions=fields.get("n_positions", 1024),
        norm_eps=fields.get("layer_norm_epsilon", 1e-5),
        activation=fields.get("activation_function", "gelu_new"),
        tied_embeddings=fields.get("tie_word_embeddings", True),
        initializer_range=fields.get("initializer_range", 0.02),
    )


def tensors(config: DecoderConfig) -> list[HFTensor]:
    """Weight names and layouts; one matrix gives all queries, then all keys, then all values."""
    hidden, inner = (config.hidden_size,), (config.intermediate_size,)
    heads = (config.num_heads, config.head_dim)
    projections = tuple(f"layers/attention/{p}" for p in ("query", "key", "value"))
    kernels, biases = (tuple(f"{p}/{what}" for p in projections) for what in ("kernel", "bias"))
    conv = functools.partial(linear, bias=True, inputs_first=True)
    layer = "transformer.h.{layer}"
    fused = f"{layer}.attn.c_attn"
    return [
        copy("transformer.wte.weight", "embed/embedding"),
        copy("transformer.wpe.weight", "embed_positions/embedding"),
        *norm(config, f"{layer}.ln_1", "layers/attention_norm"),
        matrices(f"{fused}.weight", kernels, hidden, (heads,) * 3, inputs_first=True),
        matrices(f"{fused}.bias", biases, (), (heads,) * 3),
        *conv(f"{layer}.attn.c_proj", "layers/attention/out", heads, hidden),
        *norm(config, f"{layer}.ln_2", "layers/mlp_norm"),
        *conv(f"{layer}.mlp.c_fc", "layers/mlp/up", hidden, inner),
        *conv(f"{layer}.mlp.c_proj", "layers/mlp/down", inner, hidden),
        *norm(config, "transformer.ln_f", "final_norm"),
        *head(config, "lm_head"),
    ]


FAMILIES.enter(
    "gpt2",
    Family(
        "GPT2LMHeadModel",
        settings,
        tensors,
        buffers=(".attn.bias", ".attn.masked_bias"),
        prefix="transformer.",
    ),
)
