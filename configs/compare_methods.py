"""S2L beside every method that needs no more than the same losses: one proxy, a subset and a target for each.

    python launch.py --config=configs/compare_methods.py:math_pythia70m --workdir=runs/math

Give the workdir of a finished run of the base config, and its proxy and targets are used as they are. Methods
on hidden states cost a forward pass of the target over the pool and are added by name, such as
config.selection.runs.facility_location = run(method="facility_location").
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run
from s2l_jax.selection import METHODS

KNOWN = {"trajectories", "response_tokens"}  # what a method may need

REGIONS = ("ambiguous", "easy", "hard")


def get_config(base: str = "quickstart") -> ConfigDict:
    """The base config's runs, and each of the methods at the same budget."""
    config = load(base)
    train_target = any(each.train_target for each in config.selection.runs.values())
    for name, method in METHODS.items():
        if method.needs and method.needs <= KNOWN and name not in ("s2l", "cartography"):
            config.selection.runs[name] = run(method=name, train_target=train_target)
    for region in REGIONS:
        config.selection.runs[region] = run(method="cartography", region=region, train_target=train_target)
    return config
