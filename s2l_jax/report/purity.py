"""How far clusters are of one source each."""

import numpy as np
from jaxtyping import Float, Int


def largest_shares(
    labels: Int[np.ndarray, " n"], sources: Int[np.ndarray, " n"], count: int
) -> tuple[Float[np.ndarray, " k"], float]:
    """The share of the largest source in each cluster that has rows, falling; and that of all rows, in %."""
    inside = labels >= 0
    table = np.zeros((int(labels.max(initial=-1)) + 1, max(count, 1)), np.int64)
    np.add.at(table, (labels[inside].astype(np.int64), sources[inside]), 1)
    table = table[table.sum(axis=1) > 0]
    if not len(table):
        return np.zeros(0), 0.0
    share = table.max(axis=1) / table.sum(axis=1)
    return -np.sort(-share), 100 * float(table.max(axis=1).sum() / table.sum())
