"""Whether a checkpoint does here what it does in PyTorch: losses, answers, and the way back.

    pip install torch
    python benchmarks/parity.py --checkpoint=smollm2 --rows=pool.jsonl

Measures the loss of the first rows of a pool by both, in float32 (rows without a response token are left
out), answers their prompts greedily by both, and exports the checkpoint for transformers, which must find the
tensors that it had. Prints the largest relative difference of a loss, how many answers are the same token by
token, and where the first others part. Exit status 1 where a loss differs by more than 1e-4, or a tensor
came back as another.
"""

import argparse
import sys
import tempfile
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers

import s2l_jax
from s2l_jax.data.pool import read_rows
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import tokenize
from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.models import hf
from s2l_jax.models.parameters import model_params
from s2l_jax.parallel.placement import mesh_of
from s2l_jax.trajectories.hf_callback import LabelledExamples


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--checkpoint", required=True, help="folder in Hugging Face layout, or hub id")
    parser.add_argument("--rows", required=True, help="any pool that pool.path takes")
    parser.add_argument("--num-rows", type=int, default=64, help="rows whose loss is measured")
    parser.add_argument("--answers", type=int, default=16, help="of them, those that are answered")
    parser.add_argument("--new", type=int, default=32, help="tokens of the longest answer")
    parser.add_argument("--prompt", default="plain", help="template of prompts")
    parser.add_argument("--max-length", type=int, default=512, help="tokens kept of a row")
    args = parser.parse_args()
    folder = hf.resolve(args.checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = s2l_jax.load_model(str(folder))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    read = list(read_rows(args.rows, limit=args.num_rows))
    texts = [render(args.prompt, row, tokenizer) for row in read]
    tokenized = tokenize(tokenizer, texts, max_length=args.max_length, template=args.prompt)
    kept = [(row, example) for row, example in zip(read, tokenized, strict=True) if example.has_response]
    rows, examples = [row for row, _ in kept], [example for _, example in kept]

    options = {"max_length": args.max_length, "prompt": args.prompt}
    losses = s2l_jax.example_losses(ours, tokenizer, rows, **options)
    with torch.no_grad():
        labelled = LabelledExamples(examples)
        batches = ({n: torch.tensor([v]) for n, v in labelled[i].items()} for i in range(len(labelled)))
        expected = np.array([float(theirs(**batch).loss) for batch in batches])
    difference = float(np.max(np.abs(losses - expected) / np.maximum(expected, 1e-6)))
    print(
        f"losses: largest relative difference {difference:.1e} on {len(rows)} of {len(read)} rows", flush=True
    )

    prompts = [example.tokens[: example.prompt_length].tolist() for example in examples[: args.answers]]
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else -1
    found = generate(ours, prompts, max_new_tokens=args.new, end_tokens=[end], mesh=mesh_of(ours))
    with torch.no_grad():
        asked = [_answer(theirs, prompt, args.new, end) for prompt in prompts]
    same = [mine == other for mine, other in zip(found, asked, strict=True)]
    print(f"answers: {sum(same)} of {len(same)} are the same, token by token")
    for mine, other in [
        pair for pair, alike in zip(zip(found, asked, strict=True), same, strict=True) if not alike
    ][:3]:
        print(f"  here {tokenizer.decode(mine)!r}, in PyTorch {tokenizer.decode(other)!r}")

    with tempfile.TemporaryDirectory() as written:
        params, config = model_params(ours), ours.config
        hf.save_model(written, params, config, hf.read_config(folder), dtype=jnp.float32, tokenizer=tokenizer)
        again = transformers.AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32)
        changed = _changed(theirs, again)
    print(f"export: {changed or 'every tensor is what it was, bit by bit'}")
    sys.exit(int(not difference <= 1e-4 or bool(changed)))  # NaN is none


def _answer(model: Any, prompt: list[int], new: int, end: int) -> list[int]:
    answer = model.generate(
        torch.tensor([prompt]), max_new_tokens=new, do_sample=False, eos_token_id=end, pad_token_id=end
    )[0, len(prompt) :].tolist()
    return answer[: answer.index(end)] if end in answer else answer


def _changed(before: Any, after: Any) -> str:
    """The tensors of two models that are not the same; empty where all are."""
    old, new = before.state_dict(), after.state_dict()
    both = old.keys() & new.keys()
    names = [name for name in old | new if name not in both or not torch.equal(old[name], new[name])]
    return ", ".join([*names[:5], "..."] if len(names) > 5 else names)


if __name__ == "__main__":
    main()
