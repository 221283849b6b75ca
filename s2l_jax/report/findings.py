"""What a report is made of: the results of a run, and the rows and trajectories they are of."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from s2l_jax.errors import InputError
from s2l_jax.report.rows import PoolRows
from s2l_jax.report.runs import RunGroup, clusters_losses, group_runs

SAMPLED_ROWS = 200_000  # trajectories that are looked at at once


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Rows that a run could not choose, the highest score first.

    Attributes:
      rows: their places in `Findings`.
      scores: what they were left out by (`selection.suspects`).
      reasons: of each, in words.
    """

    rows: Int64[np.ndarray, " u"]
    scores: Float[np.ndarray, " u"]
    reasons: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a report is made of.

    Attributes:
      results: the content of results.json; any part may be missing.
      trajectories: losses in nats per token, [N, T], memory-mapped if large (a sample is read).
      steps: the proxy's optimiser step of each of the T columns.
      labels: the cluster of each row, [N] (negative: none), by selection name.
      taken: whether a selection has each row, [N], by its name.
      rows: the rows themselves.
      left_out: rows that a selection could not take, by its name.
      by_source: the selections that clustered each source on its own.

    Raises:
      InputError: they do not fit together.
    """

    results: Mapping[str, Any]
    trajectories: Float[np.ndarray, "n t"] | None = None
    steps: Sequence[int] = ()
    labels: Mapping[str, Int[np.ndarray, "n"]] = dataclasses.field(default_factory=dict)
    taken: Mapping[str, Bool[np.ndarray, "n"]] = dataclasses.field(default_factory=dict)
    rows: PoolRows | None = None
    left_out: Mapping[str, LeftOut] = dataclasses.field(default_factory=dict)
    by_source: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.trajectories is None:
            return
        size, columns = self.trajectories.shape
        if len(self.steps) != columns:
            raise InputError(
                f"{len(self.steps)} steps for trajectories of {columns} columns: pass one step for each"
            )
        for name, labels in self.labels.items():
            if len(labels) != size:
                raise InputError(
                    f"{len(labels)} cluster labels of {name} for {size} trajectories: pass the labels of a "
                    "selection that was made from these trajectories"
                )

    @functools.cached_property
    def groups(self) -> Sequence[RunGroup]:
        """The runs, those that differ in their seed alone as one."""
        return group_runs(self.results)

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of the results, empty where it is missing."""
        return self.results.get(name) or {}

    @functools.cached_property
    def measured_rows(self) -> Int64[np.ndarray, " m"]:
        """The rows with a loss at every checkpoint; of very many a sample, drawn by a seed, in order."""
        if self.trajectories is None:
            return np.zeros(0, np.int64)
        chosen = np.arange(len(self.trajectories))
        if len(chosen) > SAMPLED_ROWS:
            chosen = np.sort(np.random.default_rng(0).choice(chosen, SAMPLED_ROWS, replace=False))
        losses = np.asarray(self.trajectories[chosen])
        return chosen[np.isfinite(losses).all(axis=1) & (losses != 0).any(axis=1)]

    @functools.cached_property
    def measured_losses(self) -> Float[np.ndarray, "m t"] | None:
        """Their trajectories; None without any."""
        if self.trajectories is None or not self.trajectories.shape[1] or not len(self.measured_rows):
            return None
        return np.asarray(self.trajectories[self.measured_rows], np.float64)

    @functools.cached_property
    def source_codes(self) -> Int[np.ndarray, " m"]:
        """The source of each of them, as a number."""
        codes = np.zeros(len(self.measured_rows), np.int64)
        return codes if self.rows is None else self.rows.source_codes()[0][self.measured_rows]

    @property
    def clustered(self) -> list[str]:
        """The selections that have clusters, of whatever."""
        selections = self.part("selections")
        return [name for name in self.labels if selections.get(name, {}).get("cluster_sizes")]

    @property
    def clustered_losses(self) -> list[str]:
        """Those whose clusters are of trajectories."""
        selections = self.part("selections")
        return [name for name in self.clustered if clusters_losses(selections[name])]
