"""Does the selection pay? Each method that needs the proxy alone, five replicates, three budgets.

    python launch.py --config=configs/study_embedded.py --workdir=runs/study_embedded
    python launch.py --config=configs/study_embedded.py:as_much --workdir=runs/study_embedded_as_much

The embedded pool and models; each replicate trains a proxy of its own. The second command has the random
draw with S2L's split and all rows alone, and trains their targets for as many more steps as S2L's proxy and
sweeps would pay for.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run
from s2l_jax.errors import InputError

SEEDS = (0, 1, 2, 3, 4)
# Shares of the pool, each with the tokens of S2L's subset of it (one proxy, mean of five draws).
BUDGETS = {"5%": 4_600, "15%": 13_900, "40%": 36_700}
CLEAN = 0.05  # share of each source's rows that is left out as not learnt
# 200 steps on S2L's subsets take 0.417 TFLOP, as on random rows by source, and its proxy and sweeps 0.446.
STEPS_FOR_AS_MUCH = 415


def get_config(spent: str = "") -> ConfigDict:
    """The quickstart and its methods compared; 200 steps for every target, whatever its budget."""
    if spent not in ("", "as_much"):
        raise InputError(f"configs/study_embedded.py:{spent}: after the colon is nothing, or as_much.")
    config = load("quickstart" if spent else "compare_methods")
    config.name = "study_embedded" + (f"_{spent}" if spent else "")
    config.seeds = SEEDS
    config.proxy.per_seed = True
    config.selection.budgets = tuple(BUDGETS)
    runs = config.selection.runs
    if spent:
        del runs.s2l, runs.random
        config.target.train.steps = STEPS_FOR_AS_MUCH
    else:
        runs.s2l_whole = run(method="s2l", stratify_by="none")
        for share, tokens in BUDGETS.items():
            runs[f"random_tokens-{share[:-1]}pct"] = run(method="random", budget_tokens=tokens)
        runs.s2l_clean = run(method="s2l", drop_unlearnt=CLEAN)
        runs.random_by_source_clean = run(method="random", stratify_by="source", drop_unlearnt=CLEAN)
    for selection in runs.values():
        selection.seeds = ()  # those of the config
    return config
