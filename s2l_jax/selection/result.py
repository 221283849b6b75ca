"""A selection, and the folder it is kept in."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from etils import epath
from jaxtyping import Float, Float32, Int, Int64, UInt64
from numpy.typing import ArrayLike

from s2l_jax import artifacts, integrity
from s2l_jax.errors import InputError
from s2l_jax.features.given_rows import INDICES, SUMMARY, TABLE
from s2l_jax.selection.budget import Budget
from s2l_jax.selection.ranking import ranks_within
from s2l_jax.selection.summary import summarise
from s2l_jax.selection.table import read_table, write_table

_CENTROIDS = "centroids.npy"
_SETTINGS = ("method", "budget", "unit", "seed", "options", "nested", "weighted", "notes", "subset_notes")
LEFT_OUT = "num_left_out"  # of the notes
# Columns of the table that are fields as they are.
_COLUMNS = {
    "id": "ids",
    "source": "sources",
    "cluster": "labels",
    "rank": "ranks",
    "score": "scores",
    "reason": "reason_of",
    "tokens": "num_tokens",
    "loss": "losses",
}


@dataclasses.dataclass(repr=False)
class Selection:
    """A subset of N examples, and how it came about.

    Attributes:
      indices: the chosen rows, sorted and distinct.
      labels: the cluster of every row of the pool; all 0 where the method has no clusters, -1 for
        rows that could not be chosen: not in the slice that the choice was from, or left out beforehand.
      centroids: of the clusters, in the columns that were clustered; [0, 0] without clusters.
      cluster_sources: the source of each cluster, where sources were clustered on their own.
      weights: one per chosen row: for S2L `|C_k| / R_k`, its cluster's rows per row chosen from it
        (so that the subset's weighted gradient stands for the pool's, as the paper's convergence
        corollary has it), else 1.
      ids: of every row of the pool.
      sources: of every row of the pool, where known.
      method: its name.
      budget: as asked for: examples (may exceed N), a fraction of the pool, or tokens.
      seed: of clustering and drawing.
      options: every option of the method, defaults included.
      unit: of the budget: "examples" or "tokens".
      nested: whether a smaller subset can be taken from this one; see `first`.
      weighted: whether weights are those of clusters.
      ranks: the place of each row of the pool in the method's order of preference, from 0; -1 for
        rows that the method did not come to. None for a subset made elsewhere.
      scores: what rows were ranked by, where that is one number.
      reasons: what decided, in words; `reason_of` says which of them for each row of the pool.
      num_tokens: of every row of the pool, where known.
      losses: of every row of the pool at the last checkpoint, NaN where not measured, if known.
      notes: other numbers of the method, such as an objective.
      subset_notes: the names of those that are of this subset, and not of smaller ones.
    """

    indices: Int64[np.ndarray, " b"]
    labels: Int[np.ndarray, " n"]
    centroids: Float[np.ndarray, "k t"]
    cluster_sources: list[str] | None
    weights: Float32[np.ndarray, " b"]
    ids: UInt64[np.ndarray, " n"]
    sources: np.ndarray | None
    method: str
    budget: int | float
    seed: int
    options: dict[str, Any]
    unit: str = "examples"
    nested: bool = True
    weighted: bool = False
    ranks: Int64[np.ndarray, " n"] | None = None
    scores: Float32[np.ndarray, " n"] | None = None
    reasons: tuple[str, ...] = ("",)
    reason_of: Int[np.ndarray, " n"] | None = None
    num_tokens: Int64[np.ndarray, " n"] | None = None
    losses: Float32[np.ndarray, " n"] | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    subset_notes: Sequence[str] = ()

    def __repr__(self) -> str:
        clusters = f", {len(self.centroids)} clusters" if len(self.centroids) else ""
        return f"<Selection by {self.method}: {len(self.indices)} of {len(self.labels)} rows{clusters}>"

    @property
    def cluster_sizes(self) -> Int[np.ndarray, " k"]:
        """How many rows each cluster has; empty where the method has no clusters."""
        size = len(self.centroids)
        return np.bincount(self.labels[self.labels >= 0], minlength=size)[:size]

    @property
    def num_candidates(self) -> int:
        """How many rows the choice was from: `num_asked` but those that were left out beforehand."""
        return int((self.labels >= 0).sum())

    @property
    def num_left_out(self) -> int:
        """How many rows drop_unlearnt and drop_rising left out beforehand."""
        return int(self.notes.get(LEFT_OUT, 0))

    @property
    def num_asked(self) -> int:
        """The rows that a fraction is of: the pool's, or a slice's, with those that were left out."""
        return self.num_candidates + self.num_left_out

    @property
    def picked_per_cluster(self) -> Int[np.ndarray, " k"]:
        """How many rows were chosen from each cluster."""
        size = len(self.centroids)
        return np.bincount(self.labels[self.indices], minlength=size)[:size]

    @property
    def source_counts(self) -> dict[str, tuple[int, int]]:
        """For each source its rows in the pool and in the subset; empty where none are known."""
        if self.sources is None:
            return {}
        names, codes = np.unique(self.sources, return_inverse=True)
        pool = np.bincount(codes, minlength=len(names))
        chosen = np.bincount(codes[self.indices], minlength=len(names))
        return {
            str(name): (int(size), int(count)) for name, size, count in zip(names, pool, chosen, strict=True)
        }

    @property
    def order(self) -> Int64[np.ndarray, " b"]:
        """The chosen rows as the method ranked them, the most wanted first."""
        if self.ranks is None:
            return self.indices
        return self.indices[np.argsort(self.ranks[self.indices], kind="stable")]

    def first(self, budget: int | float, *, unit: str = "examples") -> "Selection":
        """The smaller subset that the method wanted most: contained in this one, made without new work.

        For S2L, and for every method whose order does not depend on its budget, it is the subset that
        the smaller budget gives by itself. (S2L by source does not cluster a source that is taken
        whole, so its rows come at random, unless cluster_small_sources=True asks for it.) An objective and
        other `subset_notes` of this one are left out.

        Args:
          budget: examples, a fraction (of what the budget here is one of, see `num_asked`), or tokens.
          unit: "examples" or "tokens".

        Raises:
          InputError: a bad budget, one that this subset is too small for, or a method whose smaller subsets
            are not parts of its larger ones.
        """
        if not self.nested:
            raise InputError(
                f"method {self.method!r} does not nest: a smaller subset of it is not a part of this one; "
                "select it by itself"
            )
        asked = Budget(budget, unit)
        order, size = self.order, len(self.indices)
        if unit == "tokens":
            count = asked.cut(order, self.num_tokens)
            assert self.num_tokens is not None
            size, wanted = int(self.num_tokens[order].sum()), int(budget)
        else:
            count = wanted = asked.most(self.num_asked, None)
        if wanted > size:
            raise InputError(
                f"a budget of {wanted} {unit} does not fit into this subset of {size}: select the larger "
                "one first, and take the smaller from it"
            )
        indices = np.sort(order[:count])
        weights = self.weights[np.searchsorted(self.indices, indices)]
        if self.weighted:
            weights = cluster_weights(self.labels, indices)
        notes = self.notes
        if count < len(self.indices):
            notes = notes_of_fewer(notes, self.subset_notes)
        return dataclasses.replace(
            self,
            indices=indices,
            weights=weights,
            budget=budget,
            unit=unit,
            notes=notes,
        )

    def summary(self) -> dict[str, Any]:
        """What summary.json says: settings, versions, hashes, and counts per source and per cluster."""
        sources: Sequence[str | None] = self.cluster_sources or [None] * len(self.centroids)
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return settings | summarise(self._columns(), self.indices, sources)

    def save(
        self,
        path: epath.PathLike,
        *,
        trajectories: Float[np.ndarray, "s t"] | None = None,
        rows: Int64[np.ndarray, " s"] | None = None,
    ) -> None:
        """Write the folder: indices.npy, centroids.npy, clusters.parquet and summary.json.

        Each file is written whole or not at all, summary.json last: with it the folder is complete. It holds
        the digests of the others.
        clusters.parquet has one line per row of the pool (see `table.write_table`), with the losses of
        `trajectories` where they are given; `rows` of the pool are those they are of, all if left out.
        """
        folder = epath.Path(path)
        (folder / SUMMARY).unlink(missing_ok=True)
        artifacts.write_npy(folder / INDICES, self.indices)
        artifacts.write_npy(folder / _CENTROIDS, self.centroids)
        columns = self._columns()
        if self.ranks is not None and len(self.centroids):
            columns["rank_in_cluster"] = ranks_within(self.labels, self.ranks)
        write_table(folder / TABLE, columns, self.reasons, trajectories, rows)
        digests = integrity.digests(folder, (INDICES, _CENTROIDS, TABLE))
        integrity.write_json(folder / SUMMARY, self.summary() | {"digests": digests})

    @classmethod
    def load(cls, path: epath.PathLike) -> Self:
        """Read what `save` wrote.

        Raises:
          InputError: the folder holds no complete selection, or a damaged one.
        """
        folder = epath.Path(path)
        if not (folder / SUMMARY).exists():
            raise InputError(
                f"{folder} holds no complete selection: it has no summary.json; run the selection "
                f"stage, or point to a folder that Selection.save wrote"
            )
        way_out = f"select again; in a workdir, remove {folder} and run the same command"
        summary = integrity.read_json(folder / SUMMARY, way_out)
        integrity.check(folder, summary["digests"], way_out)
        sources = [cluster["source"] for cluster in summary["clusters"]]
        indices = artifacts.read_npy(folder / INDICES)
        columns, reasons = read_table(folder / TABLE)
        return cls(
            indices=indices,
            centroids=artifacts.read_npy(folder / _CENTROIDS),
            cluster_sources=sources if any(source is not None for source in sources) else None,
            weights=columns["weight"][indices],
            reasons=reasons,
            **{field: columns[name] for name, field in _COLUMNS.items()},
            # Folders of earlier versions lack some.
            **{name: summary[name] for name in _SETTINGS if name in summary},
        )

    def _columns(self) -> dict[str, Any]:
        """Columns of the table, of every row of the pool; None where not known."""
        selected, weights = np.zeros(len(self.labels), bool), np.zeros(len(self.labels), np.float32)
        selected[self.indices], weights[self.indices] = True, self.weights
        own = {name: getattr(self, field) for name, field in _COLUMNS.items()}
        return own | {"selected": selected, "weight": weights}


def notes_of_fewer(notes: Mapping[str, Any], subset_notes: Sequence[str]) -> dict[str, Any]:
    """Those of a method's notes that hold for fewer rows, too: all but `subset_notes`."""
    return {name: value for name, value in notes.items() if name not in subset_notes}


def cluster_weights(
    labels: Int[np.ndarray, " n"], indices: Int64[np.ndarray, " b"]
) -> Float32[np.ndarray, " b"]:
    """|C_k| / R_k of each chosen row: the rows of its cluster over those chosen from it."""
    own = labels[indices]
    sizes = np.bincount(labels[labels >= 0])
    return (sizes[own] / np.bincount(own)[own]).astype(np.float32)


def jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """The Jaccard index of two sets of row numbers or ids: shared over all; 1.0 if both are empty.

    Two random subsets of a fraction f of a pool have about f / (2 - f).
    """
    union = np.union1d(a, b)
    return len(np.intersect1d(a, b)) / len(union) if len(union) else 1.0
