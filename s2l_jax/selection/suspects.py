"""Which examples are probably mislabelled: whose loss stays high where others of their source are learnt."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt64

from s2l_jax.errors import InputError
from s2l_jax.selection.ranking import by_score, ranks, ranks_within

UNLEARNT = "no candidate, as its late losses are among the highest of its source"  # reasons
RISING = "no candidate, as its loss does not fall from the first checkpoint to the last"
LEFT_OUT = (UNLEARNT, RISING)

_TO_DEVIATION = 1.4826  # the median absolute deviation of a normal distribution, as a standard deviation
_FEWEST = 10  # rows of a source that are compared among themselves


def suspects(
    losses: Float[np.ndarray, "n t"],
    sources: Sequence[str] | Int[np.ndarray, " n"] | None = None,
    *,
    late: float = 1 / 3,
) -> Float32[np.ndarray, " n"]:
    """How much of an outlier each example's late loss is within its source; high: probably mislabelled.

    A response that contradicts what the model learns elsewhere is not learnt, while a hard one is in time.
    The lowest of an example's late losses is compared with those of its source: its distance from their
    median in robust standard deviations (1.4826 times the median absolute deviation). Sources of fewer than
    ten rows are compared with the whole pool.

    Args:
      losses: trajectories, columns in training order, in nats a token.
      sources: the source of each example; None: all of one.
      late: the share of the columns, at the end, that count as late; at least one.

    Raises:
      InputError: losses that are no finite [N, T] matrix, or sources of another length.
    """
    matrix = np.asarray(losses, np.float32)
    if matrix.ndim != 2 or not matrix.shape[1] or not np.isfinite(matrix).all():
        raise InputError(f"suspects: needs finite losses [N, T] with T >= 1, got shape {matrix.shape}.")
    if not 0 < late <= 1:
        raise InputError(f"suspects: late={late!r} must be above 0 and at most 1.")
    size, columns = matrix.shape
    if sources is not None and len(sources) != size:
        raise InputError(f"suspects: {size} rows of losses and {len(sources)} sources.")
    lowest = matrix[:, -max(1, round(late * columns)) :].min(axis=1).astype(np.float64)
    groups = np.zeros(size, np.int64) if sources is None else np.unique(sources, return_inverse=True)[1]
    found = _deviations(lowest)
    for rows in np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1]):
        if len(rows) >= _FEWEST:
            found[rows] = _deviations(lowest[rows])
    return found.astype(np.float32)


def least_learnt(
    scores: Float[np.ndarray, " n"],
    sources: Sequence[str] | Int[np.ndarray, " n"] | None,
    ids: UInt64[np.ndarray, " n"],
    share: float,
) -> Bool[np.ndarray, " n"]:
    """Which examples are the share of their source with the highest scores (rounded down; ties by id)."""
    size = len(scores)
    groups = np.zeros(size, np.int64) if sources is None else np.unique(sources, return_inverse=True)[1]
    counts = _counts(groups, share)
    rank = ranks_within(groups, ranks(by_score(scores, ids), size))
    return rank < counts[groups]


def num_unlearnt(sources: Sequence[str] | Int[np.ndarray, " n"] | None, size: int, share: float) -> int:
    """How many of so many examples `least_learnt` marks."""
    groups = np.zeros(size, np.int64) if sources is None else np.unique(sources, return_inverse=True)[1]
    return int(_counts(groups, share).sum())


def _counts(groups: Int[np.ndarray, " n"], share: float) -> Int64[np.ndarray, " g"]:
    # A share such as 0.29 of 100 is 28.999999999999996 in floating point.
    return np.floor(share * np.bincount(groups) + 1e-9).astype(np.int64)


def rising(losses: Float[np.ndarray, "n t"]) -> Bool[np.ndarray, " n"]:
    """Which examples' loss does not fall from the first checkpoint to the last.

    Raises:
      InputError: there is one checkpoint.
    """
    if losses.shape[1] < 2:
        raise InputError("drop_rising: needs losses at two checkpoints or more, and there is one")
    return ~(losses[:, -1] < losses[:, 0])


def _deviations(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    if not len(values):
        return values
    distance = values - np.median(values)
    spread = _TO_DEVIATION * np.median(np.abs(distance))
    # More than half of the values are one value: any other is as far as it is by the ordinary deviation.
    spread = spread or float(np.std(values)) or 1.0
    return distance / spread
