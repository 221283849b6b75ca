"""Pythia-70M chooses from MathInstruct for Llama-2-7B, whose weights need Meta's licence on the hub.

The abstract of the paper's second version speaks of proxies up to 100 times smaller than the target, as 70M
is to 7B; the official repository has no file for such a run, and its settings were not seen. Those of the
other targets are kept. Float32 state is 108 GB over the `fsdp` devices; with LoRA
(--config.target.lora.rank=16) the base is held in bfloat16, 13.5 GB, and only adapters train.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load


def get_config() -> ConfigDict:
    """The same proxy, subset and schedule as for Pythia-410M."""
    config = load("math_pythia70m")
    config.name = "math_llama2_7b"
    config.target.checkpoint = "meta-llama/Llama-2-7b-hf"
    config.target.train.remat = "full"
    config.evaluation.dtype = "bfloat16"
    config.target.export_dtype = "bfloat16"
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
