"""The paper's baselines at the first and at the last checkpoint of the proxy, beside the base config's runs.

    python launch.py --config=configs/paper_baselines.py:math_pythia70m --workdir=runs/math_baselines

The proxy's parameters are kept at each checkpoint, as facility location goes by its hidden states; so the
workdir is not one where it was trained without. Two clusterings of the whole pool, of losses and of hidden
states at the last checkpoint, train no target: the report draws figure 6 of the paper with them.
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run

METHODS = ("least_confidence", "middle_perplexity", "facility_location")


def get_config(base: str = "quickstart") -> ConfigDict:
    """The base config's runs, each baseline twice, and the two clusterings."""
    config = load(base)
    config.proxy.save_params = True
    config.selection.states.model = "proxy"
    runs = config.selection.runs
    for checkpoint in ("first", "last"):
        for method in METHODS:
            runs[f"{method}_{checkpoint}"] = run(method=method, checkpoint=checkpoint)
    runs.clusters_of_losses = run(method="s2l", stratify_by="none", train_target=False)
    runs.clusters_of_states = run(
        method="s2l", stratify_by="none", features="hidden_states", checkpoint="last", train_target=False
    )
    return config
