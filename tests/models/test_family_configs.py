"""What each family makes of its config.json: options that are refused, fields that are absent or null."""

import json

import pytest

from s2l_jax.errors import InputError
from s2l_jax.models import hf
from tests.support.paths import GOLDEN

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*dropout"),  # GPT-2 and Phi-2 name some
    pytest.mark.filterwarnings("error:.*not known"),  # no field of these configs is unknown
]

REFUSED = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt2", {"activation_function": "swish1"}, "swish1"),
    ("phi", {"qk_layernorm": True}, "qk_layernorm"),
    ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}}, "longrope"),
    ("phi3", {"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0]}}, "su"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial rotary factor"),
    ("llama", {"num_key_value_heads": 3}, "3 key-value heads"),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("mistral", {"quantization_config": {"bits": 4}}, "quantised"),
    ("mistral", {"model_type": "mixtral"}, "mixtral.*mistral"),
]


@pytest.mark.parametrize(("variant", "fields", "message"), REFUSED, ids=str)
def test_options_that_are_not_supported_fail_by_name(variant, fields, message, tmp_path):
    config = json.loads((GOLDEN / variant / "config_hub.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(InputError, match=message) as caught:
        hf.load_config(tmp_path)
    assert str(tmp_path) in str(caught.value)


DEFAULTS = [
    ("gpt_neox", {"rotary_dim": 2, "rope_theta": 10000.0, "parallel_residual": True, "qkv_bias": True}),
    ("gpt2", {"tied_embeddings": True, "intermediate_size": 128, "max_positions": 1024}),
    ("phi", {"rotary_dim": 4, "num_kv_heads": 4, "tied_embeddings": False, "head_bias": True}),
    ("phi3", {"windows": (), "num_kv_heads": 4, "norm_eps": 1e-5, "rotary_dim": 8}),
    ("llama", {"num_kv_heads": 4, "norm_eps": 1e-6, "qkv_bias": False, "tied_embeddings": False}),
    ("mistral", {"windows": (4096, 4096), "norm_eps": 1e-6, "head_dim": 8}),
    ("qwen2", {"windows": (), "qkv_bias": True, "out_bias": False, "tied_embeddings": False}),
    ("qwen3", {"head_dim": 128, "windows": (), "qkv_bias": False, "tied_embeddings": False}),
    ("gemma", {"head_dim": 256, "activation": "gelu_pytorch_tanh", "tied_embeddings": True}),
]
SIZES = {
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("model_type", "n_embd", "n_head", "n_layer"),
}


@pytest.mark.parametrize(("variant", "expected"), DEFAULTS, ids=str)
def test_absent_fields_mean_what_they_mean_in_transformers(variant, expected, tmp_path):
    config = json.loads((GOLDEN / variant / "config_hub.json").read_text())
    config = {name: value for name, value in config.items() if name in SIZES}
    if variant in ("mistral", "qwen2", "qwen3", "gemma"):
        config["num_key_value_heads"] = 2  # their own default has more heads than these models
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = hf.load_config(tmp_path)
    assert {field: getattr(settings, field) for field in expected} == expected


@pytest.mark.parametrize("variant", ["mistral", "phi3", "qwen2_windows", "qwen3_windows"])
def test_null_turns_the_window_off(variant, tmp_path):
    config = json.loads((GOLDEN / variant / "config_hub.json").read_text())
    config.pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
    assert not any(hf.load_config(tmp_path).windows)
