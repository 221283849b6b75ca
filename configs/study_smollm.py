"""Study 3: a real pretrained model, SmolLM2-135M-Instruct, trained on 5 % of a pool of mathematics.

    hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir runs/smollm2
    python benchmarks/first_layers.py --checkpoint=runs/smollm2 --layers=6 --out=runs/smollm2_6_layers
    python launch.py --config=configs/study_smollm.py:lora --workdir=runs/study_smollm_lora \
        --config.pool.path=mathmix.jsonl --config.evaluation.path=mathematics_interpolate.jsonl

":lora" trains adapters, ":whole" all weights (in a workdir of its own; half the steps, and without the plain
random draw, whose rows are long). S2L goes by the losses that the first proxy of study 2 left
(`trajectories.npz`, stored); with ":layers" in the workdir of ":lora" it goes by those of the model's own
first six layers as well. Replicates share a proxy. A hundred steps of 16 rows are nine tenths of a pass over
a subset; all rows are left out, as 1,600 of them at random are what `random` has. ":as_much", in a workdir of
its own, is the control of ":lora" trained for what S2L spends there with the proxy of study 2.
"""

from ml_collections import ConfigDict

from s2l_jax.config import default, run
from s2l_jax.errors import InputError

SEEDS = (0, 1, 2)
# 100 steps on a random subset by source take 34.446 TFLOP, on S2L's 34.236, and its proxy and sweeps 49.650.
STEPS_FOR_AS_MUCH = 243


def get_config(how: str = "lora") -> ConfigDict:
    """S2L, and random in both forms, for a hundred steps of 16 rows or fifty; or the control for more."""
    names = {each: f"study_smollm_{each}" for each in ("lora", "whole", "as_much")}
    names["layers"] = names["lora"]
    if how not in names:
        raise InputError(f"configs/study_smollm.py:{how}: after the colon is one of {', '.join(names)}.")
    config = default()
    config.name = names[how]
    config.seeds = SEEDS
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 256

    config.trajectories.path = "benchmarks/results/math/trajectories.npz"
    config.clustering.num_clusters = 20
    config.selection.budget_fraction = 0.05

    config.target.checkpoint = "runs/smollm2"
    config.target.train.batch_size = 16
    if how == "whole":
        config.target.train.steps, config.target.train.learning_rate = 50, 2e-4
    else:
        config.target.train.steps = STEPS_FOR_AS_MUCH if how == "as_much" else 100
        config.target.train.learning_rate = 1e-3
        config.target.lora.rank = 16
    config.target.train.dtype = "float32"
    config.target.train.checkpoint_every = 25

    config.evaluation.limit = 300
    config.evaluation.max_new_tokens = 32
    config.report.baseline = "random_by_source"
    runs = config.selection.runs
    runs.random_by_source = run(method="random", stratify_by="source")
    if how == "as_much":
        return config
    runs.s2l = run(method="s2l")
    if how != "whole":
        runs.random = run(method="random")
    if how == "layers":
        train = {"steps": 200, "batch_size": 16, "learning_rate": 2e-4, "dtype": "float32"}
        proxy = {"checkpoint": "runs/smollm2_6_layers", "train": train | {"checkpoint_every": 25}}
        config.proxies.layers = ConfigDict({"proxy": proxy, "trajectories": {"path": "", "every": 100}})
        runs.s2l_layers = run(method="s2l", proxy="layers")
    return config
