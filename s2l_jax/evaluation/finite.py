"""Refuses losses that are no numbers, which would be a likeliest choice or a mean like any other."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from s2l_jax.errors import DivergedError


def check_finite(losses: Float32[np.ndarray, " n"], what: Callable[[int], str]) -> None:
    """Raise a DivergedError for a loss that is not finite; `what` names the text with a number."""
    if len(bad := np.flatnonzero(~np.isfinite(losses))):
        raise DivergedError(
            f"{what(int(bad[0]))}: its loss is {losses[bad[0]]}, and {len(bad)} of {len(losses)} are "
            "not finite. The model's weights may hold such numbers; else set evaluation.dtype='float32'."
        )
