"""Confidence intervals of what an evaluation reports."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

Interval = tuple[float, float]

_Z = 1.959963984540054  # of 95 %


def wilson(successes: int, trials: int) -> Interval:
    """The 95 % score interval of a proportion (Wilson, JASA 1927); it never leaves [0, 1]."""
    share, z2 = successes / trials, _Z * _Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # At the ends the two are equal but for rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def mean_interval(means: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The 95 % interval of a mean of independent proportions, from each one's own.

    Distances to the limits add up in squares (Zou & Donner, Statistics in Medicine 2008, "MOVER").
    """
    mean = sum(means) / len(means)
    below = math.sqrt(sum((m - low) ** 2 for m, (low, _) in zip(means, intervals, strict=True)))
    above = math.sqrt(sum((high - m) ** 2 for m, (_, high) in zip(means, intervals, strict=True)))
    return mean - below / len(means), mean + above / len(means)


def bootstrap(
    score: Callable[[Int64[np.ndarray, "n"]], float], num_rows: int, *, resamples: int = 1000
) -> Interval:
    """The 95 % percentile interval of a corpus score under resampling of its rows with replacement.

    Args:
      score: of the rows with these numbers, repeats included.
      num_rows: rows of the corpus.
      resamples: how many to draw; always the same ones.
    """
    generator = np.random.default_rng(0)
    scores = [score(generator.integers(num_rows, size=num_rows)) for _ in range(resamples)]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
