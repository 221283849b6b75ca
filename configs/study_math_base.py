"""The base models of study 2, from random weights: half a pass over easy questions, none in its pool.

    python benchmarks/study_math_models.py --rows=easy.jsonl.gz,mathmix.jsonl --out=runs/study_math_models
    python launch.py --config=configs/study_math_base.py:proxy --workdir=runs/study_math_base_proxy \
        --config.pool.path=easy.jsonl.gz
    python launch.py --config=configs/study_math_base.py:target --workdir=runs/study_math_base_target \
        --config.pool.path=easy.jsonl.gz
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run
from s2l_jax.errors import InputError

LEARNING_RATES = {"proxy": 3e-3, "target": 2e-3}


def get_config(model: str = "target") -> ConfigDict:
    """`model` is "proxy" or "target"."""
    if model not in LEARNING_RATES:
        raise InputError(f"configs/study_math_base.py:{model}: after the colon is proxy or target.")
    config = default()
    config.name = f"study_math_base_{model}"
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 192

    config.target.init = "random"
    config.target.checkpoint = f"runs/study_math_models/{model}"
    config.target.train.steps = 1_800
    config.target.train.batch_size = 64
    config.target.train.learning_rate = LEARNING_RATES[model]
    config.target.train.dtype = "float32"
    config.target.train.checkpoint_every = 500
    config.selection.runs.full = run(method="full")
    return config
