"""By which proxy and seed features of a selection run are made, and where they are (`config.inputs`)."""

from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.inputs import Inputs, of_proxy, of_seed
from s2l_jax.features.feature import Feature


def inputs_of(feature: Feature, config: ConfigDict, options: dict[str, Any]) -> Inputs:
    """The proxy and seed that a feature of a selection run (`resolved_run`) is made by.

    They are the run's own where these change the feature; what does not go by them is shared.
    """
    asked = Inputs.of(config, options["proxy"], options["seed"])
    own = of_proxy(config, asked.proxy)
    goes_by_proxy = bool(asked.proxy) and feature.goes_by(config, own, options)
    replicate = asked.seed != config.seed and feature.goes_by(own, of_seed(own, asked.seed), options)
    return Inputs(asked.proxy if goes_by_proxy else "", asked.seed if replicate else config.seed)


def settings_of(feature: Feature, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
    """What a selection keeps of the settings that decide a feature."""
    inputs = inputs_of(feature, config, options)
    is_own = {"proxy.per_seed": True} if inputs.seed != config.seed else {}
    return feature.settings(inputs.config(config), options) | is_own


def part_of(feature: Feature, config: ConfigDict, options: dict[str, Any]) -> str:
    """The part of the workdir that holds it; "": none."""
    inputs = inputs_of(feature, config, options)
    part, folder = feature.part(inputs.config(config), options), inputs.folder(config)
    return f"{folder}/{part}" if part and folder else part
