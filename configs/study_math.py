"""Study 2: does the selection pay on questions of a generator not made here? Models of 1M and 4M parameters.

    python launch.py --config=configs/study_math.py --workdir=runs/study_math \
        --config.pool.path=mathmix.jsonl \
        --config.evaluation.benchmarks=pool=mathematics_interpolate.jsonl,gsm8k=gsm8k.jsonl

Five replicates. In the same workdir `configs/study_math.py:budgets` goes on with 5 and 33 %, and `:more`
with other methods as well; `:as_much`, in a workdir of its own, has the random draw with S2L's split
alone at 11 and 33 %, trained for as many more steps as S2L's proxy and sweeps would pay for.
`configs/study_math_base.py` says how the base models are made. Every other target is trained for the same
150 steps of 32 rows: 2.7 passes over 5 %, 1.2 over 11 %, less than one over 33 % and all rows. Of GSM8K,
which models so small do not solve, the losses count; the run's own accuracy is a mean over both
benchmarks.
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run
from s2l_jax.errors import InputError

SEEDS = (0, 1, 2, 3, 4)
BUDGET = 0.11
# 150 steps on S2L's subset take 5.22 TFLOP, on a random one by source 5.27, and S2L's proxy and sweeps 49.65.
STEPS_FOR_AS_MUCH = 1_560


def get_config(what: str = "") -> ConfigDict:
    """A proxy for each replicate; S2L and random in both forms, all rows, and what `what` adds."""
    if what not in ("", "budgets", "more", "as_much"):
        known = "nothing, budgets, more or as_much"
        raise InputError(f"configs/study_math.py:{what}: after the colon is {known}.")
    config = default()
    config.name = "study_math_as_much" if what == "as_much" else "study_math"
    config.seeds = SEEDS
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 256

    config.proxy.checkpoint = "runs/study_math_base_proxy/target/full/hf"
    config.proxy.per_seed = True
    config.proxy.train.steps = 550  # one pass
    config.proxy.train.batch_size = 64
    config.proxy.train.learning_rate = 1e-3
    config.trajectories.every = 110
    config.clustering.num_clusters = 20
    config.selection.budget_fraction = BUDGET

    config.target.checkpoint = "runs/study_math_base_target/target/full/hf"
    config.target.train.steps = STEPS_FOR_AS_MUCH if what == "as_much" else 150
    config.target.train.batch_size = 32
    config.target.train.learning_rate = 1e-3
    for model in (config.proxy, config.target):
        model.train.dtype = "float32"
        model.train.checkpoint_every = 200

    config.evaluation.limit = 600
    config.evaluation.max_new_tokens = 32
    runs = config.selection.runs
    config.report.baseline = "random_by_source"
    runs.random_by_source = run(method="random", stratify_by="source")
    if what == "as_much":
        config.selection.budgets = (f"{BUDGET:.0%}", "33%")
        return config
    runs.s2l = run(method="s2l")
    runs.random = run(method="random")
    one = {"budget_fraction": BUDGET}
    runs.s2l_whole = run(method="s2l", stratify_by="none", num_clusters=100, **one)
    runs.full = run(method="full")
    if what:
        config.selection.budgets = ("5%", f"{BUDGET:.0%}", "33%")
    if what == "more":
        # The three others of the best mean accuracy in study 1.
        runs.s2l_clean = run(method="s2l", drop_unlearnt=0.05, **one)
        runs.random_by_source_clean = run(method="random", stratify_by="source", drop_unlearnt=0.05, **one)
        runs.middle_perplexity = run(method="middle_perplexity", **one)
    return config
