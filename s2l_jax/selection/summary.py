"""What summary.json says of a selection beside its settings."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

if TYPE_CHECKING:
    from s2l_jax.selection.result import Selection

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def summarise(selection: Selection) -> dict[str, Any]:
    """Sizes, tokens and losses of pool and subset: in all, per source and per cluster; hashes, versions.

    Losses are those at the last checkpoint, as quantiles (least, quarters, largest), and are left out
    where not measured; so are tokens where not known.
    """
    size = len(selection.labels)
    selected = np.zeros(size, bool)
    selected[selection.indices] = True
    whole = _Groups(selection, selected, np.zeros(size, np.int64), 1)
    result: dict[str, Any] = {
        "num_examples": size,
        "num_candidates": selection.num_candidates,
        "size": len(selection.indices),
        "num_clusters": len(selection.centroids),
        **whole.described(0),
    }
    sources: dict[str, Any] = {}
    if selection.sources is not None:
        names, codes = np.unique(selection.sources, return_inverse=True)
        by_source = _Groups(selection, selected, codes, len(names))
        sources = {
            str(name): {"pool": int(by_source.pool[k]), "selected": int(by_source.picked[k])}
            | by_source.described(k)
            for k, name in enumerate(names)
        }
    count = len(selection.centroids)
    own: list[str] | list[None] = selection.cluster_sources or [None] * count
    by_cluster = _Groups(selection, selected, selection.labels if count else None, count)
    return result | {
        "sources": sources,
        "clusters": [
            {
                "cluster": k,
                "source": own[k],
                "size": int(by_cluster.pool[k]),
                "selected": int(by_cluster.picked[k]),
            }
            | by_cluster.described(k)
            for k in range(count)
        ],
        "ids_sha256": hashlib.sha256(np.ascontiguousarray(selection.ids).data).hexdigest(),
        "indices_sha256": hashlib.sha256(np.ascontiguousarray(selection.indices).data).hexdigest(),
        "versions": _versions(),
    }


class _Groups:
    """Pool and subset by group, each sorted once."""

    def __init__(
        self,
        selection: Selection,
        selected: Bool[np.ndarray, " n"],
        groups: Int[np.ndarray, " n"] | None,
        count: int,
    ):
        self.pool = self.picked = np.zeros(count, np.int64)
        self._tokens: tuple[np.ndarray, np.ndarray] | None = None
        self._losses: list[list[np.ndarray]] | None = None
        if groups is None:
            return
        inside = groups >= 0
        self.pool = np.bincount(groups[inside], minlength=count)
        self.picked = np.bincount(groups[selected], minlength=count)
        if (tokens := selection.num_tokens) is not None:
            self._tokens = (
                np.bincount(groups[inside], weights=tokens[inside], minlength=count),
                np.bincount(groups[selected], weights=tokens[selected], minlength=count),
            )
        if (losses := selection.losses) is not None:
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
