"""Which tokens of an example have a loss: those of its responses that have a token before them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

Span = tuple[int, int]  # tokens from the first to before the second


class Gaps(NamedTuple):
    """The spans of tokens without a loss between the responses of an example, for many examples."""

    rows: Int[np.ndarray, "g"]  # whose they are, in order
    starts: Int[np.ndarray, "g"]
    ends: Int[np.ndarray, "g"]
    before: Int64[np.ndarray, "h"]  # tokens in those before each, and in all: G + 1 numbers

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int, int]] | Int[np.ndarray, "g 3"]) -> "Gaps":
        """From row, start and end of each, in order of rows."""
        table = spans if isinstance(spans, np.ndarray) else np.array(list(spans), np.int64)
        rows, starts, ends = table.reshape(-1, 3).T
        return cls(rows, starts, ends, np.concatenate([[0], np.cumsum(ends - starts, dtype=np.int64)]))

    def spans(self, row: int) -> list[Span]:
        """Those of one example."""
        if not len(self.rows):
            return []
        first, last = np.searchsorted(self.rows, [row, row + 1])
        return list(zip(self.starts[first:last].tolist(), self.ends[first:last].tolist(), strict=True))

    def counts(self, rows: Int[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """How many tokens are in those of some examples."""
        rows = np.asarray(rows)
        first, last = np.searchsorted(self.rows, rows), np.searchsorted(self.rows, rows + 1)
        return self.before[last] - self.before[first]


NO_GAPS = Gaps.of([])


def response_starts(prompt_lengths: Int[np.ndarray, "*n"] | int) -> Int[np.ndarray, "*n"]:
    """Place of the first token that has a loss: after the prompt, and never the first of all.

    That one has nothing before it to be predicted from.
    """
    return np.maximum(prompt_lengths, 1)


def num_loss_tokens(
    lengths: Int[np.ndarray, "*n"] | int, prompt_lengths: Int[np.ndarray, "*n"] | int
) -> Int64[np.ndarray, "*n"]:
    """How many tokens have a loss where there is one response; 0 where none of it is left."""
    return np.maximum(np.asarray(lengths, np.int64) - response_starts(prompt_lengths), 0)


def loss_places(length: int, prompt_length: int, gaps: Iterable[Span] = ()) -> Int64[np.ndarray, "m"]:
    """The places of the tokens of one example that have a loss."""
    places = np.arange(max(prompt_length, 1), length)
    for start, end in gaps:
        places = places[(places < start) | (places >= end)]
    return places
