"""Pythia-70M chooses from MathInstruct for Pythia-410M, with the settings of the official code.

The pool is the hub dataset; a local copy is `--config.pool.path=MathInstruct.json`. Paper: arXiv
2403.07384, section 5.1 and appendix; where the code differs from the paper, this follows the code. The
official files train this proxy (the deduped Pythia) and a Phi-3-mini target (math_phi3_mini); Pythia-410M is
a target in the paper alone. Their batch is 4 rows x 8 microbatches on each GPU: 128 with four of them.
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run


def get_config() -> ConfigDict:
    """MathInstruct has 262,040 rows: 3 epochs are 6,142 steps, and 12 checkpoints at every 500."""
    config = default()
    config.name = "math_pythia70m"
    config.pool.path = "TIGER-Lab/MathInstruct"
    config.tokenize.prompt = "alpaca"
    config.tokenize.boundary = "official"
    config.tokenize.max_length = 512

    config.proxy.checkpoint = "EleutherAI/pythia-70m-deduped"
    config.trajectories.every = 500
    config.clustering.num_clusters = 100
    config.selection.stratify_by = "source"
    config.selection.budget = 50_000

    config.target.checkpoint = "EleutherAI/pythia-410m"
    config.target.match_by = "steps"
    for model in (config.proxy, config.target):
        model.train.epochs = 3.0
        model.train.batch_size = 128
        model.train.learning_rate = 2e-5
        model.train.schedule = "cosine"
        model.train.warmup_fraction = 0.03
        model.train.weight_decay = 0.0
        model.train.dtype = "bfloat16"
        model.train.checkpoint_every = 500

    # The folder of the six files (docs/guide/evaluation.md) evaluates as the paper does, by MAmmoTH's rules:
    # --config.evaluation.path=FOLDER --config.evaluation.run_programs=True. "" trains without evaluating.
    config.evaluation.path = ""
    config.evaluation.benchmarks = ("gsm8k", "math", "numglue", "svamp", "mathematics", "simuleq")
    config.evaluation.mode = "hybrid"
    config.evaluation.max_new_tokens = 512

    # One target each; --config.seeds=0,1,2 trains replicates, without which no difference is known from luck.
    config.selection.runs.s2l = run(method="s2l")
    config.selection.runs.random = run(method="random")
    config.selection.runs.random_by_source = run(method="random", stratify_by="source")
    config.selection.runs.full = run(method="full", seeds=(0,))
    config.report.baseline = "random_by_source"  # S2L by source splits the budget first, and so does it
    return config
