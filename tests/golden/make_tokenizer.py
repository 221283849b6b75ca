"""Writes tests/golden/rows.jsonl and tests/golden/tokenizer: a small pool and a tokeniser trained on it.

Run: python -m tests.golden.make_tokenizer

The tokeniser is byte-level BPE over words, as Pythia's is. So it merges the colon that ends an Alpaca prompt
with the minus sign that begins an answer, too.
"""

import json
import pathlib
import random
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.data.pool import row_of
from s2l_jax.data.prompts import render

OUT = pathlib.Path(__file__).parent
VOCABULARY = 512  # tokens
END = "<|endoftext|>"


def rows() -> list[dict[str, Any]]:
    """Embedded rows, differences below zero, and sums worked out in up to a hundred tokens and more."""
    rng = random.Random(0)
    embedded = [{name: row[name] for name in ("source", "instruction", "output")} for row in pool_rows(120)]
    made = [*embedded, *(_difference(rng) for _ in range(40)), *(_sums(rng) for _ in range(60))]
    rng.shuffle(made)
    return made


def _difference(rng: random.Random) -> dict[str, Any]:
    a, b = sorted(rng.sample(range(1, 1000), 2))
    return {"source": "difference", "instruction": f"What is {a} - {b}?", "output": str(a - b)}


def _sums(rng: random.Random) -> dict[str, Any]:
    terms = [rng.randint(1, 99) for _ in range(rng.randint(2, 16))]
    totals = [sum(terms[: end + 1]) for end in range(len(terms))]
    steps = [f"{total} + {term} = {total + term}" for total, term in zip(totals, terms[1:], strict=False)]
    return {
        "source": "sums",
        "instruction": "Add the numbers step by step.",
        "input": ", ".join(map(str, terms)),
        "output": "\n".join([*steps, f"#### {totals[-1]}"]),
    }


def main() -> None:
    """Write both."""
    made = rows()
    (OUT / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = ("".join(render("alpaca", row_of(row, "a row"))) for row in made)
    tokenizer.train_from_iterator(texts, trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=2048
    ).save_pretrained(OUT / "tokenizer")


if __name__ == "__main__":
    main()
