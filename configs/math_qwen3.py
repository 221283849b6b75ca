"""Qwen3-0.6B chooses from MathInstruct for Qwen3-8B: a proxy of the target's own family and tokeniser.

The paper has no such run; its settings are kept where the model does not ask for others. The output matrix of
the 151,936 token vocabulary dominates the proxy's cost; a Pythia-70M proxy is cheaper:
--config.proxy.checkpoint=EleutherAI/pythia-70m.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load


def get_config() -> ConfigDict:
    """The same cadence, clusters, budget and schedule as math_pythia70m."""
    config = load("math_pythia70m")
    config.name = "math_qwen3"
    config.proxy.checkpoint = "Qwen/Qwen3-0.6B-Base"
    config.target.checkpoint = "Qwen/Qwen3-8B-Base"
    config.tokenize.boundary = "separate"
    config.target.train.remat = "full"
    config.evaluation.dtype = "bfloat16"
    config.target.export_dtype = "bfloat16"
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
