"""GPT-NeoX: Pythia and its kin (arXiv 2204.06745)."""

import numpy as np

from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.families.fields import Fields, read_common, read_head_dim, read_rope
from s2l_jax.models.families.layout import HFTensor, copy, head, linear, norm
from s2l_jax.models.families.registry import FAMILIES, Family


def settings(fields: Fields) -> DecoderConfig:
    """What a GPT-NeoX config.json says."""
    head_dim = read_head_dim(fields)
    rope = read_rope(
        fields, head_dim, fraction=0.25, fraction_field="rotary_pct", theta_field="rotary_emb_base"
    )
    fields.note_dropout("attention_dropout", "hidden_dropout")
    bias = fields.get("attention_bias", True)
    return DecoderConfig(
        family="gpt_neox",
        **read_common(fields, head_dim, rope, max_positions=2048),
        num_kv_heads=fields["num_attention_heads"],
        norm_eps=fields.get("layer_norm_eps", 1e-5),
        activation=fields.get("hidden_act", "gelu"),
        parallel_residual=fields.get("use_parallel_residual", True),
        qkv_bias=bias,
        out_bias=bias,
    )


def tensors(config: DecoderConfig) -> list[HFTensor]:
    """Weight names and layouts; query, key and value of each head lie together."""
    hidden, inner = (config.hidden_size,), (config.intermediate_size,)
    heads, dim = config.num_heads, config.head_dim
    projections = tuple(f"layers/attention/{p}" for p in ("query", "key", "value"))

    def split_weight(w: np.ndarray) -> tuple[np.ndarray, ...]:
        fused = w.reshape(heads, 3, dim, config.hidden_size)
        return tuple(fused[:, i].transpose(2, 0, 1) for i in range(3))

    def join_weight(*kernels: np.ndarray) -> np.ndarray:
        return np.stack([k.transpose(1, 2, 0) for k in kernels], axis=1).reshape(-1, config.hidden_size)

    def split_bias(b: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(b.reshape(heads, 3, dim)[:, i] for i in range(3))

    def join_bias(*biases: np.ndarray) -> np.ndarray:
        return np.stack(biases, axis=1).reshape(-1)

    layer = "gpt_neox.layers.{layer}"
    fused = f"{layer}.attention.query_key_value"
    table = [
        copy("gpt_neox.embed_in.weight", "embed/embedding"),
        *norm(config, f"{layer}.input_layernorm", "layers/attention_norm"),
        *norm(config, f"{layer}.post_attention_layernorm", "layers/mlp_norm"),
        HFTensor(f"{fused}.weight", tuple(f"{p}/kernel" for p in projections), split_weight, join_weight),
        *linear(
            f"{layer}.attention.dense", "layers/attention/out", (heads, dim), hidden, bias=config.out_bias
        ),
        *linear(f"{layer}.mlp.dense_h_to_4h", "layers/mlp/up", hidden, inner, bias=True),
        *linear(f"{layer}.mlp.dense_4h_to_h", "layers/mlp/down", inner, hidden, bias=True),
        *norm(config, "gpt_neox.final_layer_norm", "final_norm"),
        *head(config, "embed_out"),
    ]
    if config.qkv_bias:
        table.append(
            HFTensor(f"{fused}.bias", tuple(f"{p}/bias" for p in projections), split_bias, join_bias)
        )
    return table


FAMILIES.enter(
    "gpt_neox",
    Family(
        "GPTNeoXForCausalLM",
        settings,
        tensors,
        buffers=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
        prefix="gpt_neox.",
    ),
)
