"""The families that are known, by the `model_type` of their config.json."""

import dataclasses
import warnings
from collections.abc import Callable

from s2l_jax.errors import InputError
from s2l_jax.models.architecture import ACTIVATIONS, DecoderConfig
from s2l_jax.models.families.fields import Fields, HFConfig
from s2l_jax.models.families.layout import HFTensor
from s2l_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class Family:
    """How one `model_type` is read: its settings, its tensors, and what its checkpoints vary in."""

    architecture: str
    settings: Callable[[Fields], DecoderConfig]
    tensors: Callable[[DecoderConfig], list[HFTensor]]
    buffers: tuple[str, ...] = (".rotary_emb.inv_freq",)  # suffixes of stored tensors that nothing needs
    prefix: str = "model."  # of tensor names; checkpoints of the bare model lack it


# Each file of this package enters its own; a `DecoderConfig` names its family.
FAMILIES = Registry("model family", Family, ["s2l_jax.models.families"])


def decoder_config(config: HFConfig, place: str) -> DecoderConfig:
    """Settings of the decoder for a parsed config.json; `place` names it in errors.

    Fields that nobody asked for and that may matter are named in a warning; so is dropout, which
    this project's training leaves off.

    Raises:
      InputError: unknown `model_type`, or an option of a known one that is not supported.
    """
    model_type, fields = config.get("model_type", ""), Fields(config)
    if model_type not in FAMILIES:
        raise InputError(
            f"{place}: model_type {model_type!r} is not supported; supported: {', '.join(sorted(FAMILIES))}."
        )
    if config.get("quantization_config"):
        raise InputError(
            f"{place}: quantised weights are not supported; save the model in float or bfloat16."
        )
    try:
        settings = FAMILIES[model_type].settings(fields)
        _check(settings)
    except KeyError as missing:
        raise InputError(f"{place}: the field {missing} is missing.") from None
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{place}: a field has a value of the wrong kind ({error}).") from error
    if unknown := fields.unknown():
        warnings.warn(f"{place}: not known and not used: {', '.join(unknown)}", stacklevel=2)
    if fields.dropout:
        rates = ", ".join(f"{name}={rate}" for name, rate in fields.dropout.items())
        warnings.warn(f"{place}: training is without the dropout it names ({rates})", stacklevel=2)
    return settings


def _check(config: DecoderConfig) -> None:
    if config.activation not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise InputError(f"activation {config.activation!r} is not supported; known: {known}.")
    if config.num_heads % config.num_kv_heads:
        raise InputError(
            f"{config.num_heads} attention heads do not divide over {config.num_kv_heads} key-value heads."
        )
