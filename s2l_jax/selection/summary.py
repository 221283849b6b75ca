"""What summary.json says of a selection beside its settings."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from s2l_jax.data.row_ids import ids_sha256

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def summarise(
    columns: Mapping[str, Any], indices: Int64[np.ndarray, " b"], cluster_sources: Sequence[str | None]
) -> dict[str, Any]:
    """Sizes, tokens and losses of pool and subset: in all, per source and per cluster; hashes, versions.

    Losses are those at the last checkpoint, as quantiles (least, quarters, largest), and are left out
    where not measured; so are tokens where not known.

    Args:
      columns: of the table (see `table.write_table`).
      indices: the chosen rows.
      cluster_sources: of each cluster its source, None where sources were clustered together.
    """
    labels, size, count = columns["cluster"], len(columns["cluster"]), len(cluster_sources)
    whole = _Groups(columns, np.zeros(size, np.int64), 1)
    result: dict[str, Any] = {
        "num_examples": size,
        "num_candidates": int((labels >= 0).sum()),
        "size": len(indices),
        "num_clusters": count,
        **whole.described(0),
    }
    sources: dict[str, Any] = {}
    if columns["source"] is not None:
        names, codes = np.unique(columns["source"], return_inverse=True)
        by_source = _Groups(columns, codes, len(names))
        sources = {
            str(name): {"pool": int(by_source.pool[k]), "selected": int(by_source.picked[k])}
            | by_source.described(k)
            for k, name in enumerate(names)
        }
    by_cluster = _Groups(columns, labels if count else None, count)
    return result | {
        "sources": sources,
        "clusters": [
            {
                "cluster": k,
                "source": cluster_sources[k],
                "size": int(by_cluster.pool[k]),
                "selected": int(by_cluster.picked[k]),
            }
            | by_cluster.described(k)
            for k in range(count)
        ],
        "ids_sha256": ids_sha256(columns["id"]),
        "indices_sha256": hashlib.sha256(np.ascontiguousarray(indices).data).hexdigest(),
        "versions": _versions(),
    }


class _Groups:
    """Pool and subset by group, each sorted once."""

    def __init__(self, columns: Mapping[str, Any], groups: Int[np.ndarray, " n"] | None, count: int):
        self.pool = self.picked = np.zeros(count, np.int64)
        self._tokens: tuple[np.ndarray, np.ndarray] | None = None
        self._losses: list[list[np.ndarray]] | None = None
        if groups is None:
            return
        inside, selected = groups >= 0, columns["selected"]
        self.pool = np.bincount(groups[inside], minlength=count)
        self.picked = np.bincount(groups[selected], minlength=count)
        if (tokens := columns["tokens"]) is not None:
            self._tokens = (
                np.bincount(groups[inside], weights=tokens[inside], minlength=count),
                np.bincount(groups[selected], weights=tokens[selected], minlength=count),
            )
        if (losses := columns["loss"]) is not None:
            known = inside & ~np.isnan(losses)
            self._losses = []
            for rows in (np.flatnonzero(known), np.flatnonzero(known & selected)):
                rows = rows[np.lexsort((losses[rows], groups[rows]))]
                ends = np.cumsum(np.bincount(groups[rows], minlength=count))
                self._losses.append(np.split(losses[rows], ends[:-1]))

    def described(self, group: int) -> dict[str, Any]:
        """Tokens and loss quantiles of one group."""
        result: dict[str, Any] = {}
        if self._tokens is not None:
            pool, picked = self._tokens
            result["tokens"] = {"pool": int(pool[group]), "selected": int(picked[group])}
        if self._losses is not None:
            names = ("pool", "selected")
            result["loss_quantiles"] = {
                name: [round(float(q), 6) for q in np.quantile(of[group], QUANTILES)]
                for name, of in zip(names, self._losses, strict=True)
                if len(of[group])
            }
        return result


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("s2l_jax", "jax", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout, not installed
            versions[package] = "not installed"
    return versions
