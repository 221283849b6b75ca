"""GPT-NeoX: Pythia and its kin (arXiv 2204.06745)."""

import numpy as np

from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.families.fields import Fields, read_common, read_head_dim
from s2l_jax.models.families.layout import HFTensor, copy, head, linear, norm
from s2l_jax.models.families.registry import FAMILIES, Family


def settings(fields: Fields) -> DecoderConfig:
    """What a GPT-NeoX config.json says."""
    common = read_common(
        fields,
        read_head_dim(fields),
        max_positions=2048,
        rotary=0.25,
        rotary_field="rotary_pct",
        theta_field="rotary_emb_base",
    )
    fields.note_dropout("attention_dropout", "hidden_dropout")
    bias = fields.get("attention_bias", True)
    return DecoderConfig(
        family="gpt_neox",
        **common,
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

    def split(w: np.ndarray) -> tuple[np.ndarray, ...]:  # [h * 3 * d, *inputs] to [*inputs, h, d]
        fused = w.reshape(heads, 3, dim, *w.shape[1:])
        return tuple(np.moveaxis(fused[:, i], (0, 1), (-2, -1)) for i in range(3))

    def join(*parts: np.ndarray) -> np.ndarray:
        fused = np.stack([np.moveaxis(part, (-2, -1), (0, 1)) for part in parts], axis=1)
        return fused.reshape(-1, *fused.shape[3:])

    layer = "gpt_neox.layers.{layer}"
    fused = f"{layer}.attention.query_key_value"
    biases = [HFTensor(f"{fused}.bias", tuple(f"{p}/bias" for p in projections), split, join)]
    return [
        copy("gpt_neox.embed_in.weight", "embed/embedding"),
        *norm(config, f"{layer}.input_layernorm", "layers/attention_norm"),
        *norm(config, f"{layer}.post_attention_layernorm", "layers/mlp_norm"),
        HFTensor(f"{fused}.weight", tuple(f"{p}/kernel" for p in projections), split, join),
        *linear(
            f"{layer}.attention.dense", "layers/attention/out", (heads, dim), hidden, bias=config.out_bias
        ),
        *linear(f"{layer}.mlp.dense_h_to_4h", "layers/mlp/up", hidden, inner, bias=True),
        *linear(f"{layer}.mlp.dense_4h_to_h", "layers/mlp/down", inner, hidden, bias=True),
        *norm(config, "gpt_neox.final_layer_norm", "final_norm"),
        *head(config, "embed_out"),
        *(biases if config.qkv_bias else []),
    ]


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
