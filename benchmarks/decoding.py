"""Decoding throughput of s2l_jax against transformers: same model, prompts and precision, one run.

    pip install torch
    python benchmarks/decoding.py --config=config.json
    python benchmarks/decoding.py --config=config.json --ends=0.01 --prompts=128 --new=256

Weights are random; throughput does not depend on them. Without `--ends` both decode greedily and no token
ends an answer. With it tokens are drawn at random and that share of the vocabulary ends an answer, so that
lengths differ as those of real answers do: transformers goes on until the last row of a batch has ended,
s2l_jax gives a row that has ended the next prompt. Tokens of answers are counted, not steps. The two take
turns; the best round of each counts, the first, which compiles, left out.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.evaluation.generation.sampling import GREEDY, Sampling
from s2l_jax.models.hf import load_config
from s2l_jax.models.parameters import bind
from s2l_jax.parallel.host_memory import keep_freed_memory
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.placement import random_params

Prompts = list[list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a config.json, such as Pythia-70M's")
    parser.add_argument("--batch", type=int, default=32, help="prompts answered at a time")
    parser.add_argument("--prompts", type=int, default=32, help="prompts in all")
    parser.add_argument("--new", type=int, default=128, help="tokens of the longest answer")
    parser.add_argument("--ends", type=float, default=0.0, help="share of the vocabulary that ends an answer")
    parser.add_argument("--longest", type=int, default=120, help="longest prompt; the shortest has 30 tokens")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    if jax.default_backend() == "cpu":
        keep_freed_memory()  # as launch.py does; it holds for both
    rng = np.random.default_rng(0)
    vocabulary = load_config(options.config).vocab_size
    ends = rng.permutation(vocabulary)[: round(options.ends * vocabulary)].tolist()
    lengths = rng.integers(30, options.longest + 1, options.prompts)
    prompts = [rng.integers(1, vocabulary, length).tolist() for length in lengths]
    runs = {"s2l_jax": _ours(options, prompts, ends), "transformers": _theirs(options, prompts, ends)}
    best: dict[str, float] = {}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            tokens = run()
            if number:
                best[name] = max(best.get(name, 0.0), tokens / (time.perf_counter() - start))
    for name, rate in best.items():
        print(f"{name:13s} {rate:8.0f} tokens/s")
    print(f"ratio         {best['s2l_jax'] / best['transformers']:8.2f}")


def _ours(options: argparse.Namespace, prompts: Prompts, ends: list[int]) -> Callable[[], int]:
    config, mesh = load_config(options.config), make_mesh()
    model = bind(config, random_params(config, mesh, jax.random.key(0)))

    def run() -> int:
        answers = generate(
            model,
            prompts,
            max_new_tokens=options.new,
            end_tokens=ends or [-1],
            mesh=mesh,
            batch_size=options.batch,
            dtype=jnp.float32,
            sampling=Sampling(temperature=1.0) if ends else GREEDY,
        )
        return sum(map(len, answers))

    return run


def _theirs(options: argparse.Namespace, prompts: Prompts, ends: list[int]) -> Callable[[], int]:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    with open(options.config) as file:
        config = transformers.AutoConfig.for_model(**json.load(file))
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    by_length = sorted(prompts, key=len)  # less padding

    def answer(batch: Prompts) -> int:
        width = max(map(len, batch))
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(batch):
            tokens[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        with torch.inference_mode():
            out = model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=options.new,
                do_sample=bool(ends),
                top_k=0,
                eos_token_id=ends or -1,
                pad_token_id=0,
            )[:, width:]
        if not ends:
            return out.numel()
        ended = torch.isin(out, torch.tensor(ends)).int().cumsum(dim=1) > 0
        return int((~ended).sum())

    def run() -> int:
        return sum(answer(by_length[i : i + options.batch]) for i in range(0, len(prompts), options.batch))

    return run


if __name__ == "__main__":
    main()
