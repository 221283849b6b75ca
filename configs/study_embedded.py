"""Does the selection pay? Each method that needs the proxy alone, five replicates, three budgets.

    python launch.py --config=configs/study_embedded.py --workdir=runs/study_embedded
    python launch.py --config=configs/study_embedded.py:as_much --workdir=runs/study_embedded_as_much
    python launch.py --config=configs/study_embedded.py:clusters --workdir=runs/study_embedded_clusters

The embedded pool and models; each replicate trains a proxy of its own. The second command has the random
draw with S2L's split and all rows alone, and trains their targets for as many more steps as S2L's proxy and
sweeps would pay for. The third has S2L without the split and with more clusters, as many as S2L by source
makes in all among them.
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
CLUSTERS = (100, 240)  # of the whole pool; S2L by source has 20 of each of 12


def get_config(part: str = "") -> ConfigDict:
    """The quickstart and its methods compared; 200 steps for every target, whatever its budget."""
    if part not in ("", "as_much", "clusters"):
        raise InputError(
            f"configs/study_embedded.py:{part}: after the colon is nothing, as_much or clusters."
        )
    config = load("quickstart" if part else "compare_methods")
    config.name = "study_embedded" + (f"_{part}" if part else "")
    config.seeds = SEEDS
    config.proxy.per_seed = True
    config.selection.budgets = tuple(BUDGETS)
    runs = config.selection.runs
    if part == "as_much":
        del runs.s2l, runs.random
        config.target.train.steps = STEPS_FOR_AS_MUCH
    elif part == "clusters":
        for name in list(runs):
            del runs[name]
        for count in CLUSTERS:
            runs[f"s2l_whole_{count}"] = run(method="s2l", stratify_by="none", num_clusters=count)
        config.report.baseline = f"s2l_whole_{CLUSTERS[0]}"
    else:
        runs.s2l_whole = run(method="s2l", stratify_by="none")
        for share, tokens in BUDGETS.items():
            runs[f"random_tokens-{share[:-1]}pct"] = run(method="random", budget_tokens=tokens)
        runs.s2l_clean = run(method="s2l", drop_unlearnt=CLEAN)
        runs.random_by_source_clean = run(method="random", stratify_by="source", drop_unlearnt=CLEAN)
    for selection in runs.values():
        selection.seeds = ()  # those of the config
    return config
