"""A small store of trajectories."""

import numpy as np

from s2l_jax.trajectories.store import TrajectoryStore

IDS = np.array([2**64 - 1, 5, 0, 2**63, 17], np.uint64)
ATTRIBUTES = {"proxy": "tiny", "settings": "a1"}
COLUMNS = np.random.default_rng(0).uniform(0, 9, (5, 4)).astype(np.float32)
STEPS = [0, 10, 20, 500]


def new_store(path, columns=4):
    store = TrajectoryStore.create(path, IDS, ATTRIBUTES)
    for step, column in zip(STEPS[:columns], COLUMNS.T, strict=False):
        store.append(step, column)
    return store
