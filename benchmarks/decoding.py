"""Greedy decoding throughput of s2l_jax against transformers: same model, prompts and precision, one run.

    pip install torch
    python benchmarks/decoding.py --config=config.json --batch=32

Weights are random (throughput does not depend on them) and no token ends an answer, so both sides produce the
same number of tokens: the refill of finished rows, which batches of unequal answers gain from, plays no part.
The two take turns; the best round of each counts, the first, which compiles, left out.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from s2l_jax.evaluation.generate import generate
from s2l_jax.models.hf import load_config
from s2l_jax.models.parameters import bind
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.placement import random_params

Prompts = list[list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a config.json, such as Pythia-70M's")
    parser.add_argument("--batch", type=int, default=32, help="prompts answered at a time, and in all")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--longest", type=int, default=120, help="longest prompt; the shortest has 30 tokens")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    vocabulary = load_config(options.config).vocab_size
    lengths = rng.integers(30, options.longest + 1, options.batch)
    prompts = [rng.integers(1, vocabulary, length).tolist() for length in lengths]
    runs = {"s2l_jax": _ours(options, prompts), "transformers": _theirs(options, prompts)}
    best: dict[str, float] = {}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                best[name] = min(best.get(name, np.inf), time.perf_counter() - start)
    for name, seconds in best.items():
        rate = options.batch * options.new / seconds
        print(f"{name:13s} {rate:8.0f} tokens/s, {1000 * seconds / options.new:6.1f} ms a step")
    print(f"ratio         {best['transformers'] / best['s2l_jax']:8.2f}")


def _ours(options: argparse.Namespace, prompts: Prompts) -> Callable[[], None]:
    config, mesh = load_config(options.config), make_mesh()
    model = bind(config, random_params(config, mesh, jax.random.key(0)))

    def run() -> None:
        answers = generate(
            model,
            prompts,
            max_new_tokens=options.new,
            end_tokens=[-1],
            mesh=mesh,
            batch_size=options.batch,
            dtype=jnp.float32,
        )
        assert all(len(answer) == options.new for answer in answers)

    return run


def _theirs(options: argparse.Namespace, prompts: Prompts) -> Callable[[], None]:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    with open(options.config) as file:
        config = transformers.AutoConfig.for_model(**json.load(file))
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    width = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1

    def run() -> None:
        with torch.inference_mode():
            out = model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=options.new,
                min_new_tokens=options.new,
                do_sample=False,
                pad_token_id=0,
            )
        assert out.shape[1] == width + options.new

    return run


if __name__ == "__main__":
    main()
