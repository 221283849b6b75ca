"""The fields of each entry of `selection.runs`, the methods, and which options each of them has."""

from s2l_jax.config.fields import Field, choice, fraction, natural, positive

METHODS = (
    "s2l", "random", "full", "given", "least_confidence", "middle_perplexity", "high_learnability",
    "confidence_curriculum", "forgetting", "cartography", "early_loss", "longest", "facility_location",
    "diverse_evol", "semdedup", "rds", "less",
)  # fmt: skip

# One entry of selection.runs; what is left at its default comes from the fields named.
RUN_SCHEMA: dict[str, Field] = {
    "method": choice("s2l", METHODS, "docs/selection.md describes them; given: the rows in selection.path"),
    "budget": natural(0, "examples to select; 0: selection.budget"),
    "budget_fraction": fraction(0.0, "share of the pool's rows to select, in place of `budget`"),
    "budget_tokens": natural(0, "tokens of prompt and response to select, in place of `budget`"),
    "prefix_of": Field(
        "", "another run, of the same method and settings and a larger budget, to take the first rows of"
    ),
    "seed": Field(-1, "seed of clustering and sampling; -1: `seed`", lambda v: v >= -1, "-1 or above"),
    "num_clusters": natural(0, "number of clusters K; 0: clustering.num_clusters"),
    "every": positive(1, "thins the cadence: uses every n-th checkpoint"),
    "num_checkpoints": natural(0, "s2l: uses the first n checkpoints only; 0: all"),
    "stratify_by": choice("inherit", ("inherit", "source", "none"), "inherit: selection.stratify_by"),
    "distance": choice("euclidean", ("euclidean", "cosine", "correlation"), "s2l: distance of trajectories"),
    "log_losses": Field(False, "s2l: cluster the logarithms of the losses"),
    "standardise": Field(False, "s2l: bring each checkpoint's losses to mean 0 and variance 1"),
    "cluster_small_sources": Field(
        False, "s2l by source: cluster sources that are taken whole too, for runs that are a prefix of this"
    ),
    "margin": natural(0.0, "forgetting: rises of the loss above this many nats count"),
    "region": choice("ambiguous", ("ambiguous", "easy", "hard"), "cartography: region of the dataset map"),
    "early": positive(1, "early_loss: how many checkpoints are early"),
    "pooling": choice(
        "auto",
        ("auto", "mean", "last", "weighted"),
        "pooling of hidden states over an example's tokens; auto: weighted for rds, else mean",
    ),
    "layer": Field(
        -1,
        "layers after which hidden states are taken; -1: all",
        lambda v: v == -1 or v > 0,
        "above 0, or -1",
    ),
    "evaluation": choice(
        "auto",
        ("auto", "lazy", "stochastic"),
        "facility_location: exact greedy, or by samples; auto: lazy up to 20,000 rows",
    ),
    "epsilon": Field(
        0.05, "facility_location: epsilon of stochastic greedy", lambda v: 0 < v < 1, "above 0 and below 1"
    ),
    "threshold": Field(
        0.95, "semdedup: cosine above which rows are duplicates", lambda v: -1 <= v <= 1, "from -1 to 1"
    ),
    "initial": positive(100, "diverse_evol: random rows to begin with"),
    "rounds": positive(1, "diverse_evol: times a target is trained and the pool embedded anew"),
    "train_target": Field(True, "train and evaluate a target on this subset", decides=False, adds=True),
}

BUDGETS = ("budget", "budget_fraction", "budget_tokens")

# The options of each method among the fields of a run; no other method has them.
OPTIONS: dict[str, tuple[str, ...]] = {
    "s2l": (
        "num_clusters",
        "every",
        "num_checkpoints",
        "stratify_by",
        "distance",
        "log_losses",
        "standardise",
        "cluster_small_sources",
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
