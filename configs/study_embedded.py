"""Does the selection pay? Each method that needs the proxy alone, five replicates, three budgets.

    python launch.py --config=configs/study_embedded.py --workdir=runs/study_embedded

The embedded pool and models; each replicate trains a proxy of its own.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run

SEEDS = (0, 1, 2, 3, 4)
# Shares of the pool, each with the tokens that S2L's subset of it holds: longer rows than a random one's.
BUDGETS = {"5%": 4_600, "15%": 13_900, "40%": 37_000}
METHODS = (
    "longest",
    "least_confidence",
    "middle_perplexity",
    "high_learnability",
    "confidence_curriculum",
    "forgetting",
    "early_loss",
)
REGIONS = ("ambiguous", "easy", "hard")
CLEAN = 0.05  # share of each source's rows that is left out as not learnt


def get_config() -> ConfigDict:
    """The quickstart's pool, models and training; 200 steps for every target, whatever its budget."""
    config = load("quickstart")
    config.name = "study_embedded"
    config.seeds = SEEDS
    config.proxy.per_seed = True
    config.selection.budgets = tuple(BUDGETS)
    runs = config.selection.runs = ConfigDict()
    runs.random_by_source = run(method="random", stratify_by="source")
    runs.s2l = run(method="s2l")
    runs.random = run(method="random")
    runs.s2l_whole = run(method="s2l", stratify_by="none")
    runs.full = run(method="full", seeds=SEEDS)
    for share, tokens in BUDGETS.items():
        runs[f"random_tokens_{share[:-1]}"] = run(method="random", budget_tokens=tokens)
    runs.s2l_clean = run(method="s2l", drop_unlearnt=CLEAN)
    runs.random_by_source_clean = run(method="random", stratify_by="source", drop_unlearnt=CLEAN)
    for method in METHODS:
        runs[method] = run(method=method)
    for region in REGIONS:
        runs[region] = run(method="cartography", region=region)
    config.report.baseline = "random_by_source"
    return config
