"""The rows of the pool as the page shows them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64

from s2l_jax.data.pool import PoolRow


class RowText(NamedTuple):
    """What a row says."""

    prompt: str
    response: str

    @classmethod
    def of(cls, row: PoolRow) -> "RowText":
        """The text of a pool's row; of a conversation, all that comes before the response."""
        *before, response = row.conversation
        return cls("\n".join(message.content for message in before), response.content)


@dataclasses.dataclass(frozen=True)
class PoolRows:
    """What is known of the rows [N] that trajectories and labels are of.

    Attributes:
      ids: of each.
      sources: its source's name, where known.
      tokens: how many it has, where known.
      response_tokens: how many of these its response has, where known.
      texts: gives those of some rows; None where they may not be shown.
    """

    ids: UInt64[np.ndarray, " n"]
    sources: np.ndarray | None = None
    tokens: Int[np.ndarray, " n"] | None = None
    response_tokens: Int[np.ndarray, " n"] | None = None
    texts: Callable[[Sequence[int]], list[RowText]] | None = None

    def source_codes(self) -> tuple[Int[np.ndarray, " n"], list[str]]:
        """The source of each row as a place in the list of names, the largest source first."""
        if self.sources is None:
            return np.zeros(len(self.ids), np.int64), []
        names, codes, counts = np.unique(self.sources, return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return place[codes], [str(names[k]) for k in order]


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` characters; what is left out is said by an ellipsis."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
