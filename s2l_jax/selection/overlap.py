"""How far two subsets overlap."""

import numpy as np
from numpy.typing import ArrayLike


def jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """The Jaccard index of two sets of row numbers or ids: shared over all; 1.0 if both are empty.

    Two random subsets of a fraction f of a pool have about f / (2 - f).
    """
    first, second = np.unique(np.asarray(a)), np.unique(np.asarray(b))
    shared = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - shared
    return shared / union if union else 1.0
