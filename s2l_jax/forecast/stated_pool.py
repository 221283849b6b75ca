"""Examples that are not at hand: lengths alone, stated or repeated from those that are."""

import dataclasses
import re

import numpy as np
from jaxtyping import Int, Int32, UInt64

from s2l_jax.data.prepared import PreparedPool
from s2l_jax.data.responses import NO_GAPS, Gaps
from s2l_jax.errors import InputError

_RESPONSE_SHARE = 0.4  # of an example, where only its tokens are stated


@dataclasses.dataclass(frozen=True)
class Stated:
    """What the user says of a pool: its rows and, where the pool is not at hand, their mean tokens."""

    rows: int
    tokens: float = 0.0
    response_tokens: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Stated":
        """From ROWS, ROWS:TOKENS or ROWS:TOKENS:RESPONSE_TOKENS.

        Raises:
          InputError: anything else, or responses longer than the examples.
        """
        found = re.fullmatch(r"(\d+)(?::(\d+(?:\.\d+)?)(?::(\d+(?:\.\d+)?))?)?", text)
        stated = cls(int(found[1]), float(found[2] or 0), float(found[3] or 0)) if found else cls(0)
        if not stated.rows or (stated.response_tokens and stated.response_tokens >= stated.tokens):
            raise InputError(
                f"--plan_pool={text}: needs ROWS, ROWS:TOKENS or ROWS:TOKENS:RESPONSE_TOKENS, such as "
                "262040:180:100: rows, and tokens of a row and of its response on average."
            )
        return stated


@dataclasses.dataclass(frozen=True)
class SizedPool:
    """What a plan looks at of a pool."""

    lengths: Int32[np.ndarray, "n"]
    prompt_lengths: Int32[np.ndarray, "n"]
    common_prefix: Int32[np.ndarray, "p"]
    source_codes: Int[np.ndarray, "n"]
    gaps: Gaps = NO_GAPS

    @property
    def ids(self) -> UInt64[np.ndarray, "n"]:
        """Numbers in the place of ids."""
        return np.arange(len(self.lengths), dtype=np.uint64)

    def read(self, indices: object) -> list:
        """There are no tokens."""
        raise NotImplementedError


def repeated(pool: PreparedPool, rows: int) -> SizedPool:
    """As many rows (0: those there are) as a pool has, over and over; several responses count as one."""
    count = rows or len(pool.lengths)
    masked = pool.prompt_lengths + pool.gaps.counts(np.arange(len(pool.lengths))).astype(np.int32)
    arrays = (np.resize(np.asarray(x), count) for x in (pool.lengths, masked, pool.source_codes))
    lengths, prompts, sources = arrays
    return SizedPool(lengths, prompts, np.asarray(pool.common_prefix), sources)


def spread(stated: Stated, max_length: int) -> SizedPool:
    """Rows of stated means, spread as a gamma distribution of shape 2 and cut at `max_length` tokens.

    Raises:
      InputError: no mean is stated.
    """
    if not stated.tokens:
        raise InputError(
            f"--plan_pool={stated.rows}: the pool is not at hand, so its tokens must be stated too: "
            f"--plan_pool={stated.rows}:TOKENS:RESPONSE_TOKENS."
        )
    lengths = np.random.default_rng(0).gamma(2.0, stated.tokens / 2.0, stated.rows)
    share = stated.response_tokens / stated.tokens or _RESPONSE_SHARE
    whole = np.clip(np.rint(lengths), 2, max_length).astype(np.int32)
    prompts = np.minimum(np.maximum(np.rint(lengths * (1 - share)), 1), whole - 1).astype(np.int32)
    none = np.zeros(0, np.int32)
    return SizedPool(whole, prompts, none, np.zeros(stated.rows, np.int32))
