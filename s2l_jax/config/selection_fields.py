"""The fields of clustering and of what all selection runs have in common."""

from s2l_jax.config.fields import Field, Group, choice, fraction, natural, positive, share
from s2l_jax.config.model_fields import DTYPES, projections

EXPORTS = ("jsonl", "parquet", "messages", "datasets", "official")

CLUSTERING = Group(
    "Clusters of trajectories",
    num_clusters=positive(100, "number of clusters K; of each source under stratify_by='source'"),
    init=choice("k-means++", ("k-means++", "random"), "first centroids: k-means++, or rows at random"),
    restarts=positive(1, "first centroids that are tried; the clustering of least inertia is kept"),
    max_iterations=positive(20, "most iterations of k-means; 20 as in the official code"),
    tolerance=natural(
        0.0, "k-means stops once its centroids move less, relative to the variance of what is clustered"
    ),
    compare=Field(
        (),
        "numbers of clusters to compare in the report, such as 25,50,100",
        lambda v: all(count >= 2 for count in v) and len(set(v)) == len(v),
        "different whole numbers from 2 up",
        items=int,
        decides=False,
        adds=True,
    ),
)
SELECTION = Group(
    "Selection: of all runs together",
    path=Field("", "a subset made elsewhere (.npy of pool rows), for method='given'", by_content=True),
    budget=positive(
        50_000,
        "examples to select (a share is budget_fraction); above the pool's size: all, and said so",
        unit="examples",
    ),
    budget_fraction=fraction(0.0, "share of the pool's rows to select; 0: by selection.budget"),
    budget_tokens=natural(
        0, "tokens of prompt and response to select; 0: by selection.budget", unit="tokens"
    ),
    budgets=Field(
        (),
        "several budgets, for every run without its own: rows as 600, a share of the pool as 5%, tokens "
        "as 20000t",
        all,
        "budgets, none of them empty",
        decides=False,
        adds=True,
    ),
    drop_unlearnt=fraction(
        0.0,
        "share of each source's rows that no run may choose: those whose late losses are highest for "
        "their source, which are probably mislabelled; 0: none, as in the paper",
    ),
    stratify_by=choice(
        "source",
        ("source", "none"),
        "split the budget over sources first (official code), or not (paper)",
    ),
    min_cluster_size=natural(
        2, "clusters of at most as many examples come last, under stratify_by='source'", unit="examples"
    ),
    exports=Field(
        ("jsonl",),
        "formats that the chosen rows are written in",
        lambda v: set(v) <= set(EXPORTS),
        f"of {', '.join(EXPORTS)}",
        EXPORTS,
        decides=False,
        adds=True,
    ),
    queries=Field(
        "",
        "file with a few rows of the task that the subset is for, in the pool's schema (rds, less)",
        by_content=True,
    ),
    query_limit=natural(0, "rows read of selection.queries; 0: all", unit="rows"),
    states=Group(
        "Selection: hidden states, for methods that go by them",
        model=choice(
            "target",
            ("target", "proxy"),
            "model whose hidden states methods go by; with which weights, `checkpoint` of a run says",
        ),
        dtype=choice("float32", DTYPES, "type of matrix products for hidden states"),
        batch_tokens=positive(
            16384, "tokens a device makes states of at a time", unit="tokens", decides=False
        ),
    ),
    gradients=Group(
        "Selection: gradients in adapters of the target, for method='less'",
        rank=positive(128, "rank of the adapters that gradients are taken in"),
        alpha=positive(512.0, "alpha of the adapters: they are scaled by alpha / rank"),
        projections=projections(("query", "key", "value", "out"), "projections that have adapters"),
        warmup_fraction=share(0.05, "share of the pool that the adapters are first trained on"),
        epochs=positive(4, "epochs of the warm-up; each ends with a checkpoint that gradients are taken at"),
        learning_rate=positive(
            2e-5, "peak learning rate of the warm-up, which is otherwise as target.train says"
        ),
        batch_size=positive(32, "examples of an optimiser step of the warm-up", unit="examples"),
        dims=natural(8192, "numbers that a gradient is projected to; 0: no projection"),
        dtype=choice("float32", DTYPES, "type of matrix products for gradients"),
        batch_tokens=positive(
            2048, "tokens a device takes gradients of at a time", unit="tokens", decides=False
        ),
    ),
    table_losses=Field(True, "write every row's losses into clusters.parquet, 4 bytes each", decides=False),
)
