"""How far two methods are apart: paired differences over replicates and evaluation rows, with intervals."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from s2l_jax.evaluation.intervals import Interval

_TIED = 1e-24  # share of the largest square below which a variance is the rounding of one of 0


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """A mean difference between two methods; see `paired_difference`.

    Attributes:
      mean: over replicates and rows.
      num_replicates, num_rows: that the mean is over.
      parts: variance of the mean from each source of chance, with its degrees of freedom.
    """

    mean: float
    num_replicates: int
    num_rows: int
    parts: tuple[tuple[float, int], ...]

    @property
    def interval(self) -> Interval:
        """Of 95 %."""
        half = self._half_width(0.05)
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """Of no difference, two-sided: where the interval of 1 - p just reaches 0.

        Where all differences are one number it is the sign test's, over rows.
        """
        if self.mean == 0:
            return 1.0
        if not any(variance for variance, _ in self.parts):
            return 2.0 ** (1 - self.num_rows)
        reach = lambda logarithm: self._half_width(math.exp(logarithm)) - abs(self.mean)  # noqa: E731
        least = -300.0
        return math.exp(optimize.brentq(reach, least, 0.0)) if reach(least) > 0 else math.exp(least)

    def _half_width(self, alpha: float) -> float:
        quantiles = [float(special.stdtrit(freedom, alpha / 2)) for _, freedom in self.parts]
        return math.sqrt(sum(v * t * t for (v, _), t in zip(self.parts, quantiles, strict=True)))


def paired_difference(differences: Float[np.ndarray, "n m"]) -> PairedDifference | None:
    """The mean of differences, with what its 95 % interval is made of; None where nothing tells of chance.

    With several replicates and rows both are random and crossed. In the two-way layout without repeats the
    mean's variance is that of replicates, MS_replicates / nm (with n - 1 degrees of freedom), and what rows
    add, (MS_rows - MS_rest) / nm where that is above 0 (m - 1); half-widths of the two by Student's t add up
    in squares (as in "MOVER", see `intervals.mean_interval`). Satterthwaite's degrees of freedom instead
    called 9 to 13 % of equal methods different at 2 or 3 replicates, this at most about 5 %
    (tests/evaluation/test_paired.py). With one row it is the paired t-test over replicates, with one
    replicate that over rows. Where replicates have the same mean, as two of few right or wrong answers often
    do, that says nothing of how far they could have been apart: the rows' means then tell alone, and with
    one row nothing does, as with one replicate and one row.

    Args:
      differences: of each replicate (rows of the array) on each evaluation row, in any unit.

    Raises:
      ValueError: no differences, or some that are not finite.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 2 or not d.size or not np.isfinite(d).all():
        raise ValueError(f"differences: needs finite numbers, n replicates x m rows; shape {d.shape}.")
    n, m = d.shape
    mean, by_replicate, by_row = float(d.mean()), d.mean(axis=1), d.mean(axis=0)
    parts: tuple[tuple[float, int], ...]
    tied = _TIED * float(np.square(d).max())
    if m == 1 and (n == 1 or np.var(d, ddof=1) <= tied):
        return None
    if n == 1 or m == 1:
        parts = ((float(np.var(d, ddof=1)) / d.size, d.size - 1),)
    else:
        rest = ((d - by_replicate[:, None] - by_row[None, :] + mean) ** 2).sum() / ((n - 1) * (m - 1))
        of_rows = max(0.0, float(n * np.var(by_row, ddof=1) - rest)) / d.size
        of_replicates = float(np.var(by_replicate, ddof=1))
        if of_replicates > tied:
            parts = ((of_replicates / n, n - 1), (of_rows, m - 1))
        else:
            parts = ((float(np.var(by_row, ddof=1)) / m, m - 1),)
    # The rounding of equal differences is no chance.
    parts = tuple((variance if variance > tied else 0.0, freedom) for variance, freedom in parts)
    return PairedDifference(mean, n, m, parts)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 1979)."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]] if p_values else []
