"""Pythia-70M chooses half of MathInstruct for Phi-3-mini (3.8B), with the settings the authors published.

Their configuration for this target: Pythia-70M (deduped) as proxy, K = 100 for each source, 131,020 examples
(half of 262,040; "130k" is only in the file's name), three epochs of the subset (not as many steps as the
pool would get), 512 tokens, peak 2e-5, cosine schedule, 3 % warm-up.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load


def get_config() -> ConfigDict:
    """Three epochs of 131,020 rows are 3,071 steps of 128."""
    config = load("math_pythia70m")
    config.name = "math_phi3_mini"
    config.selection.budget = 131_020
    config.target.checkpoint = "microsoft/Phi-3-mini-4k-instruct"
    config.target.match_by = "epochs"
    config.target.train.remat = "full"
    config.evaluation.dtype = "bfloat16"
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
