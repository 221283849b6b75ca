"""Pythia-70M chooses from MathInstruct for Phi-2 (2.7B), the larger target of arXiv 2403.07384.

All else is as in math_pythia70m. Parameters, gradients and AdamW's moments in float32 are 44 GB, spread over
the `fsdp` devices.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load


def get_config() -> ConfigDict:
    """The same proxy, subset and schedule as for Pythia-410M."""
    config = load("math_pythia70m")
    config.name = "math_phi2"
    config.target.checkpoint = "microsoft/phi-2"
    config.target.train.remat = "full"
    config.evaluation.dtype = "bfloat16"
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
