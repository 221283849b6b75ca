"""Fine-tune a target on a subset made elsewhere: a .npy of row numbers into the pool.

    python launch.py --config=configs/target_only.py --workdir=runs/target \\
        --config.pool.path=pool.jsonl --config.selection.path=indices.npy \\
        --config.target.checkpoint=EleutherAI/pythia-410m

For a subset that is a file of its own, give it as pool.path with
--config.selection.runs.subset.method=full and --config.target.match_by=epochs.
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run


def get_config() -> ConfigDict:
    """The same steps and schedule as the whole pool would get; evaluate with evaluation.path."""
    config = default()
    config.name = "target_only"
    config.evaluation.path = ""
    config.target.checkpoint = "EleutherAI/pythia-410m"
    config.selection.runs.subset = run(method="given")
    return config
