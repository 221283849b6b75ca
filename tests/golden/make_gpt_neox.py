"""Writes tests/golden/gpt_neox: a tiny GPT-NeoX with noise on every tensor, and PyTorch's logits.

Run once with torch and transformers installed: python tests/golden/make_gpt_neox.py
"""

import pathlib

import numpy as np
import torch
import transformers

OUT = pathlib.Path(__file__).parent / "gpt_neox"
LENGTHS = (9, 5, 14)  # tokens of each example


def main() -> None:
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=128,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(OUT)
    (OUT / "generation_config.json").unlink()
    examples = [torch.randint(config.vocab_size, (length,)) for length in LENGTHS]
    arrays = {f"tokens_{i}": example.numpy() for i, example in enumerate(examples)}
    for residual in ("parallel", "sequential"):
        config.use_parallel_residual = residual == "parallel"
        other = transformers.GPTNeoXForCausalLM.from_pretrained(OUT, config=config).eval()
        with torch.no_grad():
            for i, example in enumerate(examples):
                arrays[f"{residual}_{i}"] = other(example[None]).logits[0].numpy()
    np.savez(OUT / "logits.npz", **arrays)


if __name__ == "__main__":
    main()
