"""The tokeniser and the shapes of study 2's base models, which `configs/study_math_base.py` trains.

    python benchmarks/study_math_models.py --rows=easy.jsonl.gz,mathmix.jsonl --out=runs/study_math_models

Byte pairs are learnt of the rows (any pool that `pool.path` takes), every digit a token of its own. OUT/proxy
has some 1 million parameters in its layers, OUT/target some 4 million; neither has weights.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from s2l_jax.data.pool import read_rows

END, PADDING = "<|endoftext|>", "<|padding|>"
SIZES = {"proxy": (128, 5, 4), "target": (256, 5, 8)}  # hidden size, layers, heads


def main() -> None:
    """Write both folders."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--rows", required=True, help="what the byte pairs are learnt of, commas between pools"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for proxy/ and target/")
    parser.add_argument("--vocabulary", type=int, default=1024, help="tokens")
    parser.add_argument("--max_length", type=int, default=512, help="longest row of the models")
    args = parser.parse_args()
    tokenizer = train_tokenizer(args.rows.split(","), args.vocabulary)
    for name, (hidden, layers, heads) in SIZES.items():
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        special = {"bos_token": END, "eos_token": END, "pad_token": PADDING}
        settings = special | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": args.max_length,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
        config = {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * hidden,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": args.max_length,
            "rotary_pct": 0.5,
            "rotary_emb_base": 1000,
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
            "attention_bias": True,
            "initializer_range": 0.05,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        print(f"{folder}: {tokenizer.get_vocab_size()} tokens, {layers} layers of {hidden}")


def train_tokenizer(pools: Sequence[str], size: int) -> Tokenizer:
    """Byte pairs of the instructions and responses of pools."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (f"{row.instruction}\n{row.output}" for pool in pools for row in read_rows(pool))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    main()
