"""Pythia-70M chooses radiology reports of MIMIC-III for Pythia-1B to summarise: findings in, impression out.

    python -m s2l_jax.data.datasets.mimic NOTEEVENTS.csv.gz --out data/clinical
    python launch.py --config=configs/clinical_pythia70m.py --workdir=runs/clinical

The notes need a signed agreement (docs/guide/clinical.md). Other places are --config.pool.path and
--config.evaluation.path. Paper: arXiv 2403.07384, the clinical summarisation experiment.
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run


def get_config() -> ConfigDict:
    """Trained like the mathematics configs; S2L by the paper's Algorithm 1, one clustering of the pool."""
    config = default()
    config.name = "clinical_pythia70m"
    config.pool.path = "data/clinical/train.jsonl"
    config.pool.fields.id = "id"
    config.tokenize.prompt = "radiology"
    config.tokenize.max_length = 1024

    config.proxy.checkpoint = "EleutherAI/pythia-70m"
    config.trajectories.every = 500
    config.clustering.num_clusters = 100
    config.selection.stratify_by = "none"
    config.selection.budget_fraction = 0.5

    config.target.checkpoint = "EleutherAI/pythia-1b"
    config.target.match_by = "steps"
    for model in (config.proxy, config.target):
        model.train.epochs = 3.0
        model.train.batch_size = 128
        model.train.learning_rate = 2e-5
        model.train.schedule = "cosine"
        model.train.warmup_fraction = 0.03
        model.train.dtype = "bfloat16"

    config.evaluation.path = "data/clinical/test.jsonl"
    config.evaluation.metrics = ("bleu", "rouge")  # and "bertscore", with bert-score installed
    config.evaluation.max_new_tokens = 200
    config.evaluation.dtype = "bfloat16"

    config.report.texts = False  # the page holds no notes, and can be shown
    config.selection.runs.s2l = run(method="s2l")
    config.selection.runs.random = run(method="random")
    config.selection.runs.full = run(method="full", seeds=(0,))
    return config
