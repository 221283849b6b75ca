"""S2L (SmallToLarge, arXiv 2403.07384) in JAX: training data chosen by a small model's loss trajectories.

Importing this package imports nothing heavy; each name below is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2l_jax.clustering import KMeans
    from s2l_jax.parallel.placement import load_model
    from s2l_jax.pipeline import run_pipeline
    from s2l_jax.selection import Selection, SelectionInputs, select
    from s2l_jax.trajectories.load import load_trajectories
    from s2l_jax.trajectories.sweep import example_losses

_PLACES = {
    "KMeans": "s2l_jax.clustering",
    "Selection": "s2l_jax.selection",
    "SelectionInputs": "s2l_jax.selection",
    "example_losses": "s2l_jax.trajectories.sweep",
    "load_model": "s2l_jax.parallel.placement",
    "load_trajectories": "s2l_jax.trajectories.load",
    "run_pipeline": "s2l_jax.pipeline",
    "select": "s2l_jax.selection",
}

__all__ = [
    "KMeans",
    "Selection",
    "SelectionInputs",
    "example_losses",
    "load_model",
    "load_trajectories",
    "run_pipeline",
    "select",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
