"""A selection, and the folder it is kept in."""

import dataclasses
import importlib.metadata
import io
import platform
from typing import Any, Self

import numpy as np
from etils import epath
from jaxtyping import Float, Float32, Int, Int64, UInt64

from s2l_jax import artifacts
from s2l_jax.errors import InputError


@dataclasses.dataclass
class Selection:
    """A subset of N examples, and how it came about.

    Attributes:
      indices: the chosen rows, sorted and distinct.
      labels: the cluster of every row of the pool; all 0 where the method has no clusters, -1 for
        rows that could not be chosen because the choice was from a slice of the pool.
      centroids: of the clusters, in the columns that were clustered; [0, 0] without clusters.
      cluster_sources: the source of each cluster, where sources were clustered on their own.
      weights: one per chosen row: for S2L |C_k| / R_k, its cluster's rows per row chosen from it
        (so that the subset's weighted gradient stands for the pool's, as the paper's convergence
        corollary has it), else 1.
      ids: of every row of the pool.
      sources: of every row of the pool, where known.
      method: its name.
      budget: as asked for; may exceed N.
      seed: of clustering and drawing.
      options: every option of the method, defaults included.
    """

    indices: Int64[np.ndarray, " b"]
    labels: Int[np.ndarray, " n"]
    centroids: Float[np.ndarray, "k t"]
    cluster_sources: list[str] | None
    weights: Float32[np.ndarray, " b"]
    ids: UInt64[np.ndarray, " n"]
    sources: np.ndarray | None
    method: str
    budget: int
    seed: int
    options: dict[str, Any]

    @property
    def cluster_sizes(self) -> Int[np.ndarray, " k"]:
        """How many rows each cluster has; empty where the method has no clusters."""
        size = len(self.centroids)
        return np.bincount(self.labels[self.labels >= 0], minlength=size)[:size]

    @property
    def num_candidates(self) -> int:
        """How many rows the choice was from: the pool's, or those of a slice of it."""
        return int((self.labels >= 0).sum())

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

    def summary(self) -> dict[str, Any]:
        """What summary.json says: settings, versions, and counts per source and per cluster."""
        sources: list[str] | list[None] = self.cluster_sources or [None] * len(self.centroids)
        clusters = zip(sources, self.cluster_sizes, self.picked_per_cluster, strict=True)
        return {
            "method": self.method,
            "budget": self.budget,
            "seed": self.seed,
            "options": self.options,
            "num_examples": len(self.labels),
            "num_candidates": self.num_candidates,
            "size": len(self.indices),
            "num_clusters": len(self.centroids),
            "sources": {
                name: {"pool": size, "selected": count} for name, (size, count) in self.source_counts.items()
            },
            "clusters": [
                {"cluster": number, "source": source, "size": int(size), "selected": int(count)}
                for number, (source, size, count) in enumerate(clusters)
            ],
            "versions": _versions(),
        }

    def save(self, path: epath.PathLike) -> None:
        """Write the folder: indices.npy, centroids.npy, clusters.parquet and summary.json.

        Each file is written whole or not at all, summary.json last: with it the folder is complete.
        clusters.parquet has one line per row of the pool: row, id, source, cluster (-1 outside of
        the slice that was selected from), selected, and weight (0 where not selected).
        """
        folder = epath.Path(path)
        (folder / "summary.json").unlink(missing_ok=True)
        artifacts.write_npy(folder / "indices.npy", self.indices)
        artifacts.write_npy(folder / "centroids.npy", self.centroids)
        artifacts.write_bytes(folder / "clusters.parquet", self._clusters_parquet())
        artifacts.write_json(folder / "summary.json", self.summary())

    @classmethod
    def load(cls, path: epath.PathLike) -> Self:
        """Read what `save` wrote.

        Raises:
          InputError: the folder holds no complete selection.
        """
        import pyarrow.parquet as pq

        folder = epath.Path(path)
        if not (folder / "summary.json").exists():
            raise InputError(
                f"{folder} holds no complete selection: it has no summary.json; run the selection "
                f"stage, or point to a folder that Selection.save wrote"
            )
        summary = artifacts.read_json(folder / "summary.json")
        table = pq.read_table(io.BytesIO((folder / "clusters.parquet").read_bytes()))
        indices = artifacts.read_npy(folder / "indices.npy")
        sources = None
        if table["source"].null_count < len(table):
            sources = np.asarray(table["source"].to_pylist())
        cluster_sources = [
            cluster["source"] for cluster in summary["clusters"] if cluster["source"] is not None
        ]
        return cls(
            indices=indices,
            labels=table["cluster"].to_numpy(),
            centroids=artifacts.read_npy(folder / "centroids.npy"),
            cluster_sources=cluster_sources or None,
            weights=table["weight"].to_numpy()[indices],
            ids=table["id"].to_numpy(),
            sources=sources,
            **{name: summary[name] for name in ("method", "budget", "seed", "options")},
        )

    def _clusters_parquet(self) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        size = len(self.labels)
        selected, weights = np.zeros(size, bool), np.zeros(size, np.float32)
        selected[self.indices], weights[self.indices] = True, self.weights
        sources = pa.nulls(size, pa.string()) if self.sources is None else pa.array(self.sources)
        table = pa.table(
            {
                "row": np.arange(size),
                "id": self.ids,
                "source": sources,
                "cluster": self.labels.astype(np.int32),
                "selected": selected,
                "weight": weights,
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("s2l_jax", "jax", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout, not installed
            versions[package] = "not installed"
    return versions
