from .clustering import KMeans
from .parallel.placement import load_model
from .pipeline import run_pipeline
from .report.load import load_results
from .selection import Selection, SelectionInputs, select
from .selection.suspects import suspects
from .trajectories.load import load_trajectories
from .trajectories.sweep import example_losses
from .version import __version__

__all__ = [
    "KMeans",
    "Selection",
    "SelectionInputs",
    "__version__",
    "example_losses",
    "load_model",
    "load_results",
    "load_trajectories",
    "run_pipeline",
    "select",
    "suspects",
]
