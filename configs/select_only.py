"""Selection from trajectories made elsewhere: no model is loaded and nothing is trained.

    python launch.py --config=configs/select_only.py --workdir=runs/select \\
        --config.trajectories.path=losses.npy --config.selection.budget=50000

With --config.pool.path=pool.jsonl, the rows that the trajectories belong to in the same order, the
subset is also written as subset.jsonl, and the budget can be split over sources.
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run


def get_config() -> ConfigDict:
    """The paper's selection, Algorithm 1 on one clustering, and a random subset beside it."""
    config = default()
    config.name = "select_only"
    config.pool.path = ""
    config.evaluation.path = ""
    config.selection.stratify_by = "none"
    config.selection.runs.s2l = run(method="s2l", train_target=False)
    config.selection.runs.random = run(method="random", train_target=False)
    return config
