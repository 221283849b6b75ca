"""How the proxy changes the result: S2L by several proxies, each with its subsets and targets, in one report.

    python launch.py --config=configs/ablation_proxies.py:math_pythia70m --workdir=runs/math

The paper's appendix has Pythia-70M, Pythia-160M and GPT-2; with math_pythia70m the first is that of the base
config. The default, on the embedded models, takes minutes: the proxy, the target as its own proxy, and a
proxy that starts at random. Give the workdir of a finished run of the base config, and what it has is used
as it is. Other proxies are trained by the same settings on the same pool, each with its own tokeniser; one
that another workdir has trained is named by its losses:
config.proxies.gpt2 = ConfigDict({"trajectories": {"path": "runs/gpt2/trajectories.zarr"}}).
"""

from ml_collections import ConfigDict

from s2l_jax.config import load, run

EMBEDDED = ("quickstart",)  # base configs of embedded models
MATH = {"pythia160m": "EleutherAI/pythia-160m-deduped", "gpt2": "openai-community/gpt2"}


def get_config(base: str = "quickstart") -> ConfigDict:
    """The base config's runs, and S2L by every proxy."""
    config = load(base)
    own = config.selection.runs.s2l
    if base in EMBEDDED:
        proxies = {"target": {"checkpoint": config.target.checkpoint}, "from_scratch": {"init": "random"}}
    else:
        proxies = {name: {"checkpoint": place} for name, place in MATH.items()}
    for name, fields in proxies.items():
        config.proxies[name] = ConfigDict({"proxy": fields})
        config.selection.runs[f"s2l_{name}"] = run(
            method="s2l", proxy=name, seeds=own.seeds, train_target=own.train_target
        )
    return config
