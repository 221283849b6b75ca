"""How the embedded base checkpoints were trained, from random weights: `make base` runs this for both.

python launch.py --config=configs/quickstart_base.py:target --workdir=runs/base_target
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run
from s2l_jax.data.datasets.base import base_checkpoint


def get_config(model: str = "target") -> ConfigDict:
    """The tasks of the quickstart in a terse notation; `model` is "proxy" or "target"."""
    config = default()
    config.name = f"quickstart_base_{model}"
    config.pool.path = "synthetic-base"
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 96

    config.target.init = "random"
    config.target.checkpoint = base_checkpoint(model)
    config.target.train.steps = 5000
    config.target.train.batch_size = 32
    config.target.train.learning_rate = 3e-3
    config.target.train.dtype = "float32"
    config.target.train.remat = "full"  # the allocations it spares cost more than the arithmetic
    config.target.train.checkpoint_every = 1000
    config.target.export_dtype = "bfloat16"

    config.evaluation.path = "synthetic"
    config.evaluation.max_new_tokens = 48
    config.selection.runs.full = run(method="full")
    return config
