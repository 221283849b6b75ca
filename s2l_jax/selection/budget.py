"""Budgets: a number of examples, a fraction of the pool, or a number of tokens."""

import dataclasses
import numbers

import numpy as np
from jaxtyping import Int, Int64

from s2l_jax.errors import InputError

UNITS = ("examples", "tokens")


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of a pool to take.

    Attributes:
      amount: a whole number of `unit`, or a fraction of the pool's examples.
      unit: "examples" or "tokens" (of prompt and response).

    Raises:
      InputError: an unknown unit, or an amount that is neither a whole number of at least 1 nor, for
        examples, a fraction above 0 and below 1.
    """

    amount: int | float
    unit: str = "examples"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise InputError(f"the budget's unit must be one of {', '.join(UNITS)}, got {self.unit!r}")
        amount = self.amount
        if isinstance(amount, bool) or not isinstance(amount, numbers.Real):
            raise InputError(f"budget must be a number, got {amount!r}")
        if isinstance(amount, numbers.Integral):
            if amount <= 0:
                raise InputError(f"budget must be a whole number of at least 1, got {amount!r}")
        elif self.unit != "examples" or not 0 < amount < 1:
            fraction = ", or a fraction above 0 and below 1" if self.unit == "examples" else ""
            raise InputError(f"budget must be a whole number of at least 1{fraction}, got {amount!r}")

    @property
    def is_fraction(self) -> bool:
        """Whether the amount is a fraction of the pool."""
        return not isinstance(self.amount, numbers.Integral)

    def most(self, size: int, num_tokens: Int[np.ndarray, " n"] | None) -> int:
        """The most examples of a pool of `size` that the budget can come to.

        Raises:
          InputError: a token budget without token counts, or too small for any example.
        """
        if self.unit == "examples":
            count = max(1, round(self.amount * size)) if self.is_fraction else int(self.amount)
            return min(count, size)
        counts = self._counts(num_tokens)
        count = int(np.searchsorted(np.cumsum(np.sort(counts)), self.amount, side="right"))
        if not count:
            raise InputError(
                f"a budget of {self.amount} tokens is too small for any example: the shortest has "
                f"{counts.min()}"
            )
        return count

    def cut(self, order: Int[np.ndarray, " m"], num_tokens: Int[np.ndarray, " n"] | None) -> int:
        """How many of the rows of an order to take: those before the first that no longer fits.

        Raises:
          InputError: a token budget without token counts, or too small for the first row.
        """
        if self.unit == "examples":
            return len(order)
        counts = self._counts(num_tokens)[order]
        count = int(np.searchsorted(np.cumsum(counts), self.amount, side="right"))
        if not count:
            raise InputError(
                f"a budget of {self.amount} tokens is too small for the first example of this method's "
                f"order, row {order[0]}, which has {counts[0]}"
            )
        return count

    def _counts(self, num_tokens: Int[np.ndarray, " n"] | None) -> Int64[np.ndarray, " n"]:
        if num_tokens is None:
            raise InputError(
                "a budget in tokens needs num_tokens, the tokens of each example: run the pool stage "
                "with a model's tokeniser, or pass SelectionInputs(num_tokens=...)"
            )
        return np.asarray(num_tokens, np.int64)
