"""How the number of clusters changes the result: one proxy, and for each K subsets and targets of every seed.

    python launch.py --config=configs/ablation_clusters.py --workdir=runs/quickstart --jobs=2
    python launch.py --config=configs/ablation_clusters.py:math_pythia70m --workdir=runs/math

Give the workdir of a finished run of the base config, and its proxy and targets are used as they are.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run

NUM_CLUSTERS = (10, 25, 50, 200, 400)
FEW = (2, 5, 10, 50)  # for the 4,000 rows of the quickstart


def get_config(base: str = "quickstart") -> ConfigDict:
    """The base config's runs, and S2L at every K of the list."""
    config = load(base)
    own = config.selection.runs.s2l
    for k in FEW if base == "quickstart" else NUM_CLUSTERS:
        config.selection.runs[f"s2l_k{k}"] = run(
            method="s2l", num_clusters=k, seeds=own.seeds, train_target=own.train_target
        )
    return config
