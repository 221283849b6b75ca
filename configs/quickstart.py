"""The whole pipeline in a few minutes on two CPU cores: embedded pool, embedded small models."""

from ml_collections import ConfigDict

from s2l_jax.config import default, run
from s2l_jax.data.datasets.base import base_checkpoint


def get_config() -> ConfigDict:
    """A small preset: 4,000 generated rows; nothing here is the paper's setting."""
    config = default()
    config.name = "quickstart"
    config.pool.path = "synthetic"
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 96

    config.proxy.checkpoint = base_checkpoint("proxy")
    config.proxy.train.steps = 250
    config.proxy.train.batch_size = 32
    config.proxy.train.learning_rate = 1e-3
    config.trajectories.every = 25
    config.clustering.num_clusters = 20
    config.selection.budget = 600

    config.target.checkpoint = base_checkpoint("target")
    config.target.train.steps = 200
    config.target.train.batch_size = 32
    config.target.train.learning_rate = 1e-3
    for model in (config.proxy, config.target):
        model.train.dtype = "float32"
        model.train.remat = "full"  # the allocations it spares cost more than the arithmetic
        model.train.checkpoint_every = 100

    config.analysis.batch_tokens = (
        16_384  # gradients of small models are small, and projecting each batch costs
    )

    config.evaluation.path = "synthetic"
    config.evaluation.max_new_tokens = 48

    # S2L splits its budget over the sources first; the fair control draws at random after the same split.
    config.seeds = (0, 1, 2)
    config.selection.runs.s2l = run(method="s2l")
    config.selection.runs.random = run(method="random")
    config.selection.runs.random_by_source = run(method="random", stratify_by="source")
    config.selection.runs.full = run(method="full", seeds=(0,))
    config.report.baseline = "random_by_source"
    return config
