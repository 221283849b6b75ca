"""The fields of `selection` that all runs share."""

from typing import Any

from s2l_jax.config.fields import Field, choice, fraction, natural, positive

SELECTION: dict[str, Any] = {
    "path": Field("", "a subset made elsewhere (.npy of pool rows), for method='given'"),
    "budget": positive(50_000, "examples to select; above the pool's size: all, and said so"),
    "budget_fraction": fraction(0.0, "the budget as a share of the pool's rows instead; 0: by `budget`"),
    "budget_tokens": natural(0, "the budget as tokens of prompt and response instead; 0: by `budget`"),
    "stratify_by": choice(
        "source",
        ("source", "none"),
        "split the budget over sources first (official code), or not (paper)",
    ),
    "min_cluster_size": natural(2, "clusters of at most this size come last (source only)"),
    "exports": Field(
        "jsonl", "files of the chosen rows, with commas between: jsonl, parquet, messages, datasets"
    ),
    "queries": Field(
        "", "file with a few rows of the task that the subset is for, in the pool's schema (rds, less)"
    ),
    "query_limit": natural(0, "rows of it that are read; 0: all"),
    "states": {
        "model": choice("target", ("target", "proxy"), "whose hidden states methods go by, untuned"),
        "dtype": choice("float32", ("float32", "bfloat16"), "of its matrix products"),
        "batch_tokens": positive(16384, "tokens a device works on at a time"),
    },
    "gradients": {
        "rank": positive(128, "of the target's adapters that gradients are taken in (less)"),
        "alpha": positive(512.0, "adapters are scaled by alpha / rank"),
        "projections": Field("query,key,value,out", "that have adapters, with commas between, or all"),
        "warmup_fraction": Field(
            0.05, "share of the pool they are first trained on", lambda v: 0 < v <= 1, "above 0, at most 1"
        ),
        "epochs": positive(4, "of that training; each ends with a checkpoint that gradients are taken at"),
        "learning_rate": positive(2e-5, "of that training; the rest is as in target.train"),
        "batch_size": positive(32, "of that training"),
        "dims": natural(8192, "numbers that a gradient is projected to; 0: no projection"),
        "dtype": choice("float32", ("float32", "bfloat16"), "of matrix products"),
        "batch_tokens": positive(2048, "tokens a device takes gradients of at a time"),
    },
    "table_losses": Field(True, "write every row's losses into clusters.parquet: 4 bytes each"),
}

EXPORTS = ("jsonl", "parquet", "messages", "datasets")
