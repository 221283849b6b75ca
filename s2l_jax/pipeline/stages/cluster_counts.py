"""Part of stage `selection`: what the report says of other numbers of clusters."""

import dataclasses
from typing import Any

from s2l_jax import artifacts, records
from s2l_jax.clustering import compare_cluster_counts
from s2l_jax.config import deciding
from s2l_jax.console import Progress
from s2l_jax.errors import InputError
from s2l_jax.records import Record
from s2l_jax.training.run import Run
from s2l_jax.trajectories.load import Trajectories

FOLDER = "cluster_counts"  # with a part for each number


def compare_all(run: Run, trajectories: Trajectories | None) -> None:
    """Fit all trajectories with each number of clusters that `clustering.compare` lists.

    Raises:
      InputError: there are no trajectories, or more clusters than distinct ones.
    """
    counts = run.config.clustering.compare
    if not counts:
        return
    if trajectories is None:
        raise InputError(
            f"clustering.compare={run.config.clustering.compare!r}: there are no trajectories to cluster; "
            "run stage proxy, or set trajectories.path."
        )
    check_counts(run, len(trajectories.losses))
    settings = _settings(run, trajectories)
    asked = run.config.clustering
    fits = {
        "init": asked.init,
        "restarts": asked.restarts,
        "max_iter": asked.max_iterations,
        "tol": asked.tolerance,
    }
    progress = Progress("comparing numbers of clusters", len(counts), "numbers")
    for done, count in enumerate(counts, start=1):
        record = Record(run.workdir / FOLDER / str(count), f"{FOLDER}/{count}", settings)
        if not record.done:
            (found,) = compare_cluster_counts(trajectories.losses, [count], seed=run.config.seed, **fits)
            record.finish(dataclasses.asdict(found))
        progress.update(done, f"K={count}")
    progress.close()


def compared(run: Run, trajectories: Trajectories | None) -> list[str]:
    """The parts of numbers that were fitted to these trajectories as the config has it, in any sitting."""
    if trajectories is None:
        return []
    settings = _settings(run, trajectories)
    made = artifacts.files_in(run.workdir / FOLDER)
    return [f"{FOLDER}/{each.name}" for each in made if not records.conflicts(each, settings)]


def _settings(run: Run, trajectories: Trajectories) -> dict[str, Any]:
    return deciding(run.config, "cluster_counts", {"trajectories.sha256": trajectories.digest})


def check_counts(run: Run, size: int) -> None:
    """Raise an InputError where `clustering.compare` has more clusters than there are rows."""
    counts = run.config.clustering.compare
    if max(counts, default=0) > size:
        raise too_many_clusters("compare", counts, size)


def too_many_clusters(field: str, asked: object, size: int) -> InputError:
    """The error of a field of `clustering` that asks for more clusters than there are rows."""
    return InputError(
        f"clustering.{field}={asked} is above the {size} rows whose losses are tracked: use at most {size}, "
        "better far fewer."
    )
