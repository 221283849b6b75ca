"""How the config.json of well-known hub repositories spells the settings of each family."""

from typing import Any

SAME = object()  # the model's own value, in the hub's spelling
_SHAPE = {
    "hidden_size": SAME,
    "intermediate_size": SAME,
    "max_position_embeddings": SAME,
    "num_attention_heads": SAME,
    "num_hidden_layers": SAME,
    "vocab_size": SAME,
    "initializer_range": SAME,
    "use_cache": True,
}
_LLAMA = _SHAPE | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "num_key_value_heads": SAME,
    "rms_norm_eps": SAME,
    "tie_word_embeddings": SAME,
}
_QWEN = _LLAMA | {
    "attention_dropout": 0.0,
    "rope_theta": SAME,
    "sliding_window": SAME,
    "max_window_layers": SAME,
    "use_sliding_window": SAME,
    "torch_dtype": "bfloat16",
}

# Every field that a well-known repository of the family has, and no other.
HUB = {
    "gpt_neox": _SHAPE  # EleutherAI/pythia-70m
    | {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "layer_norm_eps": SAME,
        "rotary_emb_base": SAME,
        "rotary_pct": SAME,
        "tie_word_embeddings": SAME,
        "torch_dtype": "float16",
        "transformers_version": "4.24.0",
        "use_parallel_residual": SAME,
    },
    "gpt2": {  # openai-community/gpt2
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": SAME,
        "layer_norm_epsilon": SAME,
        "model_type": "gpt2",
        "n_ctx": SAME,
        "n_embd": SAME,
        "n_head": SAME,
        "n_layer": SAME,
        "n_positions": SAME,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": SAME,
    },
    "phi": _SHAPE  # microsoft/phi-2
    | {
        "_name_or_path": "microsoft/phi-2",
        "architectures": ["PhiForCausalLM"],
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_phi.PhiConfig",
            "AutoModelForCausalLM": "modeling_phi.PhiForCausalLM",
        },
        "bos_token_id": 50256,
        "embd_pdrop": 0.0,
        "eos_token_id": 50256,
        "hidden_act": "gelu_new",
        "layer_norm_eps": SAME,
        "model_type": "phi",
        "num_key_value_heads": SAME,
        "partial_rotary_factor": SAME,
        "qk_layernorm": False,
        "resid_pdrop": 0.1,
        "rope_scaling": None,
        "rope_theta": SAME,
        "tie_word_embeddings": SAME,
        "torch_dtype": "float16",
        "transformers_version": "4.37.0",
    },
    "phi3": _LLAMA  # microsoft/Phi-3-mini-4k-instruct
    | {
        "_name_or_path": "Phi-3-mini-4k-instruct",
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
        "embd_pdrop": 0.0,
        "model_type": "phi3",
        "original_max_position_embeddings": 4096,
        "pad_token_id": 2,
        "resid_pdrop": 0.0,
        "rope_scaling": None,
        "rope_theta": SAME,
        "sliding_window": SAME,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.2",
    },
    "llama": _LLAMA  # meta-llama/Llama-2-7b-hf; meta-llama/Llama-3.1-8B says more
    | {
        "_name_or_path": "meta-llama/Llama-2-7b-hf",
        "pretraining_tp": 1,
        "rope_scaling": SAME,
        "rope_theta": SAME,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0",
    },
    "mistral": _LLAMA  # mistralai/Mistral-7B-v0.1
    | {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "rope_theta": SAME,
        "sliding_window": SAME,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
    },
    "qwen2": _QWEN  # Qwen/Qwen2-1.5B
    | {
        "architectures": ["Qwen2ForCausalLM"],
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "model_type": "qwen2",
        "transformers_version": "4.40.1",
    },
    "qwen3": _QWEN  # Qwen/Qwen3-0.6B
    | {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": SAME,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": SAME,
        "model_type": "qwen3",
        "rope_scaling": None,
        "transformers_version": "4.51.0",
    },
    "gemma": {k: v for k, v in _LLAMA.items() if k != "tie_word_embeddings"}  # google/gemma-2b
    | {
        "architectures": ["GemmaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "head_dim": SAME,
        "hidden_act": "gelu",  # means the tanh approximation
        "hidden_activation": None,
        "model_type": "gemma",
        "pad_token_id": 0,
        "rope_scaling": None,
        "rope_theta": SAME,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.38.0.dev0",
    },
}


def hub_config(family: str, config: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The settings of `config`, as transformers saved it, as a hub repository spells them; `more` wins."""
    rope = dict(config.get("rope_parameters") or {})
    theta = rope.pop("rope_theta", None)
    older = config | {
        "rope_theta": theta,
        "rotary_emb_base": theta,
        "partial_rotary_factor": rope.get("partial_rotary_factor"),
        "rotary_pct": rope.get("partial_rotary_factor"),
        "rope_scaling": rope if rope.get("rope_type") != "default" else None,
        "n_ctx": config.get("n_positions"),
    }
    fields = HUB[family] | more
    return {name: older[name] if value is SAME else value for name, value in sorted(fields.items())}
