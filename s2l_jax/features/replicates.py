"""Which seed the features of a replicate are made by, and where they are: see `proxy.per_seed`."""

from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.replicates import inputs_folder, of_inputs, of_seed
from s2l_jax.features.feature import Feature


def seed_of(feature: Feature, config: ConfigDict, options: dict[str, Any]) -> int:
    """The seed of the config that a feature of a selection run (`resolved_run`) is made by.

    With `proxy.per_seed` the run's own, if that changes the feature; what does not go by it is shared.
    """
    own = options["seed"]
    return own if inputs_folder(config, own) and feature.goes_by_seed(config, own, options) else config.seed


def settings_of(feature: Feature, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
    """What a selection keeps of the settings that decide a feature."""
    seed = seed_of(feature, config, options)
    is_own = {"proxy.per_seed": True} if seed != config.seed else {}
    return feature.settings(of_seed(config, seed), options) | is_own


def part_of(feature: Feature, config: ConfigDict, options: dict[str, Any]) -> str:
    """The part of the workdir that holds it; "": none."""
    seed = seed_of(feature, config, options)
    part, folder = feature.part(of_inputs(config, seed), options), inputs_folder(config, seed)
    return f"{folder}/{part}" if part and folder else part
