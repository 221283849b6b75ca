"""Does the selection pay? Each method that needs the proxy alone, five replicates, three budgets.

    python launch.py --config=configs/study_embedded.py --workdir=runs/study_embedded

The embedded pool and models; each replicate trains a proxy of its own.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run

SEEDS = (0, 1, 2, 3, 4)
# Shares of the pool, each with the tokens of S2L's subset of it (one proxy, mean of five draws).
BUDGETS = {"5%": 4_600, "15%": 13_900, "40%": 36_700}
CLEAN = 0.05  # share of each source's rows that is left out as not learnt


def get_config() -> ConfigDict:
    """The quickstart and its methods compared; 200 steps for every target, whatever its budget."""
    config = load("compare_methods")
    config.name = "study_embedded"
    config.seeds = SEEDS
    config.proxy.per_seed = True
    config.selection.budgets = tuple(BUDGETS)
    runs = config.selection.runs
    runs.s2l_whole = run(method="s2l", stratify_by="none")
    for share, tokens in BUDGETS.items():
        runs[f"random_tokens_{share[:-1]}"] = run(method="random", budget_tokens=tokens)
    runs.s2l_clean = run(method="s2l", drop_unlearnt=CLEAN)
    runs.random_by_source_clean = run(method="random", stratify_by="source", drop_unlearnt=CLEAN)
    for selection in runs.values():
        selection.seeds = ()  # those of the config
    return config
