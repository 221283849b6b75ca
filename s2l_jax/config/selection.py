"""The fields of `selection`: of all runs together, and of each entry of `selection.runs`."""

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
    "pooling": choice(
        "auto",
        ("auto", "mean", "last", "weighted"),
        "of hidden states over an example's tokens; auto: weighted for rds, else mean",
    ),
    "layer": Field(
        -1, "of hidden states: after how many layers; -1: all", lambda v: v == -1 or v > 0, "above 0, or -1"
    ),
    "evaluation": choice(
        "auto",
        ("auto", "lazy", "stochastic"),
        "facility_location: exact greedy, or by samples; auto: lazy up to 20,000 rows",
    ),
    "epsilon": Field(
        0.05, "facility_location: of stochastic greedy", lambda v: 0 < v < 1, "above 0 and below 1"
    ),
    "threshold": Field(
        0.95, "semdedup: cosine above which rows are duplicates", lambda v: -1 <= v <= 1, "from -1 to 1"
    ),
    "initial": positive(100, "diverse_evol: random rows to begin with"),
    "rounds": positive(1, "diverse_evol: times a target is trained and the pool embedded anew"),
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
    "facility_location": ("pooling", "layer", "evaluation", "epsilon"),
    "diverse_evol": ("pooling", "layer", "initial", "rounds"),
    "semdedup": ("pooling", "layer", "num_clusters", "threshold"),
    "rds": ("pooling", "layer"),
}
# Options that say what a method is given, and not what it does with it.
OF_INPUTS = ("pooling", "layer")
EXPORTS = ("jsonl", "parquet", "messages", "datasets")
