"""The configs of replicates and other proxies: what they change, and that they leave the config as it is."""

from ml_collections import ConfigDict

from s2l_jax.config import load
from s2l_jax.config.inputs import Inputs, of_proxy, of_seed


def two_proxies():
    config = load("quickstart")
    config.proxies.small = ConfigDict({"proxy": {"checkpoint": "small"}, "trajectories": {"every": 7}})
    return config


def test_a_replicate_has_its_seed_and_shares_all_else():
    config = two_proxies()
    other = of_seed(config, 5)
    assert (other.seed, config.seed) == (5, 0)
    assert other.to_dict() == config.to_dict() | {"seed": 5}
    # With hundreds of runs, a copy for each is minutes of planning.
    assert other.selection is config.selection


def test_another_proxy_has_its_own_fields_and_leaves_the_config_as_it_is():
    config = two_proxies()
    before = config.to_dict()
    other = of_proxy(config, "small")
    assert other.proxy.checkpoint == "small"
    assert other.trajectories.every == 7
    assert other.proxy.train == config.proxy.train
    assert other.selection is config.selection
    made = Inputs("small", 3).config(config)
    assert (made.seed, made.proxy.checkpoint) == (3, "small")
    assert config.to_dict() == before
