"""The fields of `selection`: of all runs together, and of each entry of `selection.runs`."""

from typing import Any

from s2l_jax.config_fields import Field, choice, fraction, natural, positive

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
    "table_losses": Field(True, "write every row's losses into clusters.parquet: 4 bytes each"),
}

METHODS = (
    "s2l", "random", "full", "given", "least_confidence", "middle_perplexity", "high_learnability",
    "confidence_curriculum", "forgetting", "cartography", "early_loss", "longest", "facility_location",
    "diverse_evol", "semdedup", "rds", "less",
)  # fmt: skip

# One entry of selection.runs; what is left at its default comes from the fields named.
RUN_SCHEMA: dict[str, Field] = {
    "method": choice("s2l", METHODS, "docs/selection.md describes them; given: the rows in selection.path"),
    "budget": natural(0, "examples to select; 0: selection.budget"),
    "budget_fraction": fraction(0.0, "a share of the pool's rows instead"),
    "budget_tokens": natural(0, "tokens of prompt and response instead"),
    "within": Field(
        "", "another run, of the same method and settings and a larger budget, to take the first rows of"
    ),
    "seed": Field(-1, "of clustering and sampling; -1: seed", lambda v: v >= -1, "-1 or above"),
    "num_clusters": natural(0, "K; 0: clustering.num_clusters"),
    "every": positive(1, "thins the cadence: uses every n-th checkpoint"),
    "first": natural(0, "s2l: uses the first n checkpoints only; 0: all"),
    "stratify_by": choice("inherit", ("inherit", "source", "none"), "inherit: selection.stratify_by"),
    "distance": choice("euclidean", ("euclidean", "cosine", "correlation"), "s2l: of trajectories"),
    "log_losses": Field(False, "s2l: cluster the logarithms of the losses"),
    "standardise": Field(False, "s2l: bring each checkpoint's losses to mean 0 and variance 1"),
    "cluster_whole": Field(
        False, "s2l by source: cluster sources that are taken whole too, for runs within this one"
    ),
    "margin": natural(0.0, "forgetting: rises of the loss above this many nats count"),
    "region": choice("ambiguous", ("ambiguous", "easy", "hard"), "cartography: of the dataset map"),
    "early": positive(1, "early_loss: how many checkpoints are early"),
    "train_target": Field(True, "train and evaluate a target on this subset"),
}

BUDGETS = ("budget", "budget_fraction", "budget_tokens")

# The options of each method among the fields of a run; no other method has them.
OPTIONS: dict[str, tuple[str, ...]] = {
    "s2l": (
        "num_clusters",
        "every",
        "first",
        "stratify_by",
        "distance",
        "log_losses",
        "standardise",
        "cluster_whole",
    ),
    "random": ("stratify_by",),
    "forgetting": ("margin",),
    "cartography": ("region",),
    "early_loss": ("early",),
}
EXPORTS = ("jsonl", "parquet", "messages", "datasets")
