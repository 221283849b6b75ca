"""How far two clusterings of the same examples agree."""

import numpy as np
from jaxtyping import Int, Shaped
from numpy.typing import ArrayLike

from s2l_jax.errors import InputError


def adjusted_rand_index(a: ArrayLike, b: ArrayLike) -> float:
    """The Rand index of two label vectors [N], corrected for chance (Hubert and Arabie, 1985).

    1.0 means the same partition whatever the labels are called, 0.0 what chance would give. The
    pair counts are whole numbers of any size, so the result is exact up to its last rounding.

    Raises:
      InputError: the vectors differ in length or are not one-dimensional.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"adjusted_rand_index needs two label vectors of one length, got shapes "
            f"{first.shape} and {second.shape}"
        )
    _, rows = np.unique(first, return_inverse=True)
    names, columns = np.unique(second, return_inverse=True)
    cells = rows.astype(np.int64) * len(names) + columns
    together = _pairs(np.unique(cells, return_counts=True)[1])
    in_first, in_second = _pairs(np.bincount(rows)), _pairs(np.bincount(columns))
    total = len(first) * (len(first) - 1) // 2
    chance = in_first * in_second
    most = (in_first + in_second) * total - 2 * chance
    if most == 0:  # both put every example alone, or all of them together
        return 1.0
    return 2 * (together * total - chance) / most


def adjusted_rand_within(
    a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"] | None = None
) -> float | None:
    """The adjusted Rand index of two clusterings within each group of rows, the mean by their rows.

    That is for rows that were clustered group by group: over all of them rows of two groups are always
    apart, which would count as agreement. Without `groups` all rows are one. Groups count that both have in
    several clusters; None where there are none. Rows with a negative label in either are left out.
    """
    rows = np.flatnonzero((a >= 0) & (b >= 0))
    codes = np.zeros(len(rows), np.int64)
    if groups is not None:
        codes = np.unique(groups[rows], return_inverse=True)[1]
    values, sizes = [], []
    for own in np.split(rows[np.argsort(codes, kind="stable")], np.cumsum(np.bincount(codes))[:-1]):
        if len(np.unique(a[own])) > 1 and len(np.unique(b[own])) > 1:
            values.append(adjusted_rand_index(a[own], b[own]))
            sizes.append(len(own))
    return float(np.average(values, weights=sizes)) if values else None


def _pairs(counts: Int[np.ndarray, " m"]) -> int:
    counts = counts.astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())
