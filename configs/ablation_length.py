"""How the length of trajectories changes the result: one proxy, its first checkpoints alone.

    python launch.py --config=configs/ablation_length.py --workdir=runs/quickstart --jobs=2
    python launch.py --config=configs/ablation_length.py:math_pythia70m --workdir=runs/math

The first n checkpoints stand for a proxy whose training ended there, but for its learning rate, which was on
its way to a later end. Give the workdir of a finished run of the base config, and its proxy and targets are
used as they are.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run

NUM_CHECKPOINTS = (2, 4, 7)  # of 10 in the quickstart, 12 in math_pythia70m


def get_config(base: str = "quickstart") -> ConfigDict:
    """The base config's runs, and S2L on the first n checkpoints."""
    config = load(base)
    own = config.selection.runs.s2l
    for n in NUM_CHECKPOINTS:
        config.selection.runs[f"s2l_first{n}"] = run(
            method="s2l", num_checkpoints=n, seeds=own.seeds, train_target=own.train_target
        )
    return config
