"""Which hidden states stand for an example."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from s2l_jax.config.options import options_of
from s2l_jax.errors import InputError

if TYPE_CHECKING:
    from s2l_jax.models.architecture import DecoderConfig


@dataclasses.dataclass(frozen=True)
class StateSettings:
    """Which vectors.

    Attributes:
      pooling: how hidden states become one vector an example: "mean" over all tokens of prompt and response,
        "last" of them, or "weighted", the mean with weights that grow with the position (RDS+; Muennighoff,
        arXiv 2202.08904).
      layer: layers after which hidden states are taken, followed by the model's final norm; -1: all.
      checkpoint: whose weights: "untuned"; with selection.states.model="proxy" those of its training at the
        "first" or "last" sweep or at a step, kept by proxy.save_params; or a folder with tuned weights of the
        model, in Hugging Face layout.
    """

    pooling: Literal["mean", "last", "weighted"] = "mean"
    layer: Annotated[int, Ge(-1)] = -1
    checkpoint: str = "untuned"

    @classmethod
    def of(cls, options: dict[str, Any]) -> StateSettings:
        return cls(options["pooling"], options["layer"], options["checkpoint"])

    def check(self, config: DecoderConfig) -> None:
        """Check that a model has them.

        Raises:
          InputError: an unknown pooling, or a layer that it does not have.
        """
        for option in options_of(type(self)).values():
            option.check(getattr(self, option.name), "hidden states")
        if self.layer != -1 and not 1 <= self.layer <= config.num_layers:
            raise InputError(f"layer={self.layer}: the model has {config.num_layers}; use 1 to that, or -1")
