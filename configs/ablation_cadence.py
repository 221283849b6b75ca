"""How the checkpoint cadence changes the result: one proxy, its trajectories thinned.

    python launch.py --config=configs/ablation_cadence.py --workdir=runs/quickstart --jobs=2
    python launch.py --config=configs/ablation_cadence.py:math_pythia70m --workdir=runs/math

Every n-th checkpoint stands for a cadence n times as long, at no cost: the columns are there. Give
the workdir of a finished run of the base config, and its proxy and targets are used as they are.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run

EVERY = (2, 3, 5)


def get_config(base: str = "quickstart") -> ConfigDict:
    """The base config's runs, and S2L on every n-th checkpoint."""
    config = load(base)
    own = config.selection.runs.s2l
    for n in EVERY:
        config.selection.runs[f"s2l_every{n}"] = run(
            method="s2l", every=n, seeds=own.seeds, train_target=own.train_target
        )
    return config
