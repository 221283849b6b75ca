"""Whole arrays on this host, wherever their shards lie."""

import jax
import numpy as np
from jax.experimental import multihost_utils


def to_host(array: jax.Array | np.ndarray) -> np.ndarray:
    """The whole array on this host, also where its shards lie on several processes.

    All processes call it together, in the same order.
    """
    if isinstance(array, np.ndarray) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
