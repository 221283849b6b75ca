"""What selections are made by: which proxy, and the seed of all that is trained or drawn for it."""

import dataclasses

from ml_collections import ConfigDict

OWN = "proxy"  # the name, beside those of `proxies`, of the config's own proxy
GROUPS = ("proxy", "trajectories")  # that an entry of `proxies` may change fields of
PROXY_PARTS = ("proxy", "trajectories", "imported")  # of a workdir, that trajectories are made or kept in


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A proxy, its trajectories, and the features that depend on either or on the seed.

    Attributes:
      proxy: its name in `proxies`; "" for the config's own.
      seed: of the config, or with `proxy.per_seed` of a replicate.
    """

    proxy: str
    seed: int

    @classmethod
    def of(cls, config: ConfigDict, proxy: str = "", seed: int | None = None) -> "Inputs":
        """Those of a proxy and a replicate's seed, which share the config's without `proxy.per_seed`."""
        return cls(proxy, seed if seed is not None and config.proxy.per_seed else config.seed)

    @property
    def model(self) -> str:
        """What the proxy is called where models are told apart, such as by their tokenisers."""
        return f"{OWN}_{self.proxy}" if self.proxy else OWN

    def folder(self, config: ConfigDict) -> str:
        """Where in a workdir they are; "": in the workdir itself."""
        seed = f"seed_{self.seed}" if self.seed != config.seed else ""
        return "/".join(filter(None, (self.model if self.proxy else "", seed)))

    def config(self, config: ConfigDict) -> ConfigDict:
        """The config that they are made by: with the proxy's own fields, and their seed."""
        if not self.folder(config):
            return config
        other = of_proxy(config, self.proxy)
        other.seed = self.seed
        return other


def of_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """The config of a replicate: with another `seed`, and the groups of the config itself."""
    other = _shared(config)
    other.seed = seed
    return other


def of_proxy(config: ConfigDict, name: str) -> ConfigDict:
    """A config whose own proxy is that of a name in `proxies` ("": that it has); other groups are shared."""
    other = _shared(config)
    for group, fields in config.proxies[name].items() if name else ():
        other[group] = ConfigDict(config[group].to_dict())
        other[group].update(fields)
    return other


def _shared(config: ConfigDict) -> ConfigDict:
    # Not copied: there may be hundreds of runs, each of which asks for such a config.
    other = ConfigDict()
    for name in config:
        other[name] = config[name]
    return other
