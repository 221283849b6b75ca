"""Writes tests/golden/<variant>: tiny models by transformers, noise on every tensor, PyTorch's outputs.

Run with torch and transformers installed: python -m tests.golden.make_golden [variant ...]

A folder holds config.json and model.safetensors as transformers saves them, config_hub.json with the same
settings in the spelling of that family's hub repositories, and golden.npz:

    tokens_<i>, logits_<i>   examples, each run alone, and their logits [tokens, vocab]
    prompt_<i>, answer_<i>   prompts, each run alone, and their greedy continuations; nothing ends them
    gradient/<tensor>        of the mean cross-entropy of the last example's tokens from PROMPT on
"""

import dataclasses
import json
import pathlib
import shutil
import sys
import tempfile
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from tests.golden.hub_configs import hub_config

OUT = pathlib.Path(__file__).parent
LENGTHS = (9, 5, 21)  # tokens of each example
PROMPT = 6  # tokens of the last example that its loss leaves out
PROMPT_LENGTHS = (11, 3, 6)
NEW_TOKENS = 12
MARGIN = 0.02  # least lead of a greedy token over the next one
DISTINCT = 5  # least number of different tokens in an answer


@dataclasses.dataclass(frozen=True)
class Variant:
    """One tiny model: its family's config class, settings beyond `SIZES`, and how its hub file differs."""

    family: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    hub: dict[str, Any] = dataclasses.field(default_factory=dict)
    gradients: bool = False


SIZES = {
    "vocab_size": 67,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Values that no family has as its default.
GROUPED = {"num_key_value_heads": 2, "rms_norm_eps": 1e-3, "rope_parameters": {"rope_theta": 500.0}}

VARIANTS = {
    # Other tests use this one too; its sizes and its weights are not to change.
    "gpt_neox": Variant(
        "gpt_neox",
        {
            "vocab_size": 64,
            "max_position_embeddings": 128,
            "initializer_range": 0.02,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500.0,
                "partial_rotary_factor": 0.5,
            },
        },
        gradients=True,
    ),
    "gpt_neox_sequential": Variant(
        "gpt_neox",
        {
            "use_parallel_residual": False,
            "attention_bias": False,
            "layer_norm_eps": 1e-3,
            "rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 1.0},
        },
        {"attention_bias": False},
    ),
    "gpt2": Variant("gpt2", {"layer_norm_epsilon": 1e-3}),
    "phi": Variant(
        "phi",
        {
            "num_key_value_heads": 2,
            "layer_norm_eps": 1e-3,
            "rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.75},
        },
    ),
    "phi3": Variant(
        "phi3",
        GROUPED
        | {
            "sliding_window": 8,
            "pad_token_id": 2,
            "rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.75},
        },
        {"partial_rotary_factor": 0.75},
    ),
    "llama": Variant("llama", GROUPED, gradients=True),
    "llama_biases": Variant(
        "llama",
        GROUPED | {"attention_bias": True, "mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, "attention_dropout": 0.0},
    ),
    "llama_linear_tied": Variant(
        "llama",
        GROUPED
        | {
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
        },
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
    ),
    # One wavelength below 32 / 4, two up to 32, five above: every branch of the rule is taken.
    "llama3": Variant(
        "llama",
        GROUPED
        | {
            "head_dim": 16,
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        {"head_dim": 16, "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0},
    ),
    "mistral": Variant("mistral", GROUPED | {"head_dim": 16, "sliding_window": 8}, {"head_dim": 16}),
    "qwen2": Variant(
        "qwen2",
        GROUPED | {"tie_word_embeddings": True},
        {"sliding_window": 4, "max_window_layers": 0},  # off: use_sliding_window is false
    ),
    "qwen2_windows": Variant(
        "qwen2",
        GROUPED | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": Variant("qwen3", GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3_windows": Variant(
        "qwen3",
        GROUPED
        | {
            "head_dim": 16,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    # Large weights, because the scaled and tied embedding would make every token repeat itself.
    "gemma": Variant(
        "gemma",
        GROUPED | {"num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "initializer_range": 0.4},
    ),
}


def make_model(variant: Variant) -> transformers.PreTrainedModel:
    """Freshly initialised, then N(0, 0.1^2) added to every tensor."""
    sizes = SIZES | variant.settings
    if variant.family == "gpt2":
        names = {
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
        }
        sizes = {names.get(k, k): v for k, v in sizes.items() if k != "intermediate_size"}
    config = transformers.AutoConfig.for_model(variant.family, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def logits_of(model: transformers.PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens[None]).logits[0]


def answer(model: transformers.PreTrainedModel, prompt: torch.Tensor) -> torch.Tensor | None:
    """Greedy continuation, or None where a token wins too closely or the answer repeats itself."""
    out = model.generate(
        prompt[None],
        attention_mask=torch.ones_like(prompt)[None],
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )[0]
    best = logits_of(model, out)[len(prompt) - 1 : -1].topk(2).values
    new = out[len(prompt) :]
    assert len(new) == NEW_TOKENS
    good = (best[:, 0] - best[:, 1]).min() > MARGIN and len(new.unique()) >= DISTINCT
    return new if good else None


def gradients(model: transformers.PreTrainedModel, tokens: torch.Tensor) -> dict[str, np.ndarray]:
    """Of the example's loss, by the names that tensors have in model.safetensors."""
    model.zero_grad()
    logits = model(tokens[None]).logits[0]
    torch.nn.functional.cross_entropy(logits[PROMPT - 1 : -1], tokens[PROMPT:]).backward()
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        twin = transformers.AutoModelForCausalLM.from_config(model.config)
        for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
            ours.copy_(theirs.grad)
        twin.save_pretrained(directory)
        return load_file(f"{directory}/model.safetensors")


def make(name: str, variant: Variant, seed: int) -> None:
    """Write one variant's folder."""
    torch.manual_seed(seed)
    out = OUT / name
    shutil.rmtree(out, ignore_errors=True)
    model = make_model(variant)
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    model.generation_config.eos_token_id = None  # every answer is as long as allowed

    arrays = {}
    for i, length in enumerate(LENGTHS):
        tokens = torch.randint(model.config.vocab_size, (length,))
        arrays[f"tokens_{i}"] = tokens.numpy().astype(np.int32)
        arrays[f"logits_{i}"] = logits_of(model, tokens).numpy()
    if variant.gradients:
        named = gradients(model, torch.from_numpy(arrays["tokens_2"]).long())
        arrays |= {f"gradient/{tensor}": value for tensor, value in named.items()}
    for i, length in enumerate(PROMPT_LENGTHS):
        found = None
        for _ in range(500):
            prompt = torch.randint(model.config.vocab_size, (length,))
            if (found := answer(model, prompt)) is not None:
                break
        assert found is not None, f"{name}: no prompt of {length} tokens has a clear answer"
        arrays[f"prompt_{i}"] = prompt.numpy().astype(np.int32)
        arrays[f"answer_{i}"] = found.numpy().astype(np.int32)
    np.savez(out / "golden.npz", **arrays)

    hub = hub_config(variant.family, json.loads((out / "config.json").read_text()), variant.hub)
    (out / "config_hub.json").write_text(json.dumps(hub, indent=2) + "\n")
    same_in_hub_spelling(out, arrays)


def same_in_hub_spelling(out: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """transformers reads config_hub.json as the same model."""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(out / "model.safetensors", directory)
        shutil.copy(out / "config_hub.json", f"{directory}/config.json")
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        for i in range(len(LENGTHS)):
            logits = logits_of(model, torch.from_numpy(arrays[f"tokens_{i}"]).long()).numpy()
            np.testing.assert_allclose(logits, arrays[f"logits_{i}"], rtol=0, atol=1e-5, err_msg=str(out))


def main() -> None:
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or list(VARIANTS)
    for seed, (name, variant) in enumerate(VARIANTS.items()):
        if name in wanted:
            make(name, variant, seed)
            print(name, flush=True)


if __name__ == "__main__":
    main()
