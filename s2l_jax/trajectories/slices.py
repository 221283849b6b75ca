"""A slice: the part of the pool whose losses are tracked, where that is not all of it."""

import dataclasses
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int, Int64, UInt64

from s2l_jax import artifacts
from s2l_jax.data.order import priorities
from s2l_jax.data.row_ids import ids_sha256
from s2l_jax.errors import InputError

_SHOWN = 5  # ids or lines that an error names


@dataclasses.dataclass(frozen=True)
class SliceSettings:
    """Which rows are tracked; the fields are those of `trajectories.slice_*` in the config."""

    count: int = 0  # rows; 0: all
    fraction: float = 1.0  # of the pool's rows
    ids: str = ""  # a file of row ids; empty: none


@dataclasses.dataclass(frozen=True)
class TrackedRows:
    """The rows of the pool whose losses are tracked: all, or a slice."""

    rows: Int64[np.ndarray, "s"]  # sorted
    ids: UInt64[np.ndarray, "s"]
    sources: Int[np.ndarray, "s"]  # their numbers
    settings: dict[str, Any]  # what tells this slice from another; empty for the whole pool


def track(
    settings: SliceSettings, ids: UInt64[np.ndarray, "n"], sources: Int[np.ndarray, "n"], seed: int
) -> TrackedRows:
    """The tracked rows, as `slice_rows` has them by priorities of this seed."""
    chosen = slice_rows(settings, ids, sources, priorities(ids, seed))
    if chosen is None:
        return TrackedRows(np.arange(len(ids)), ids, sources, {})
    described = {"rows": len(chosen), "ids_sha256": ids_sha256(ids[chosen])}
    return TrackedRows(chosen, ids[chosen], sources[chosen], {"trajectories.slice": described})


def slice_rows(
    settings: SliceSettings,
    ids: UInt64[np.ndarray, "n"],
    sources: Int[np.ndarray, "n"],
    priority: UInt64[np.ndarray, "n"],
) -> Int64[np.ndarray, "s"] | None:
    """The tracked rows of the pool, sorted; None for all of them.

    A count or fraction is drawn source by source (`stratified_rows`); a count of N or more is all.
    At most one of the settings is set.

    Raises:
      InputError: a file of ids that cannot be read, or ids that are not the pool's.
    """
    size = len(ids)
    if settings.ids:
        rows = np.sort(_rows_of(read_ids(settings.ids), ids, settings.ids))
    else:
        count = settings.count or max(1, round(settings.fraction * size))
        if count >= size:
            return None
        rows = stratified_rows(sources, priority, count)
    return None if len(rows) == size else rows


def stratified_rows(
    sources: Int[np.ndarray, "n"], priority: UInt64[np.ndarray, "n"], count: int
) -> Int64[np.ndarray, "s"]:
    """`count` rows in which every source has its share of the pool, sorted.

    Args:
      sources: the number of each row's source.
      priority: within a source the rows with the smallest are taken (equal ones by row).
      count: at most N.
    """
    sizes = np.bincount(sources)
    wanted = proportional_shares(sizes, count)
    order = np.lexsort((priority, sources))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[rank < wanted[sources[order]]]).astype(np.int64)


def proportional_shares(sizes: Int[np.ndarray, "k"], count: int) -> Int64[np.ndarray, "k"]:
    """`count` divided in proportion to `sizes` by largest remainder, no share above its size.

    As long as `count` allows, whoever has a size gets at least 1, and the rest is divided anew among
    the others. Equal remainders go by number.
    """
    shares = np.zeros(len(sizes), np.int64)
    left = np.flatnonzero(sizes)
    at_least_one = count >= len(left)
    while len(left):
        total = sum(sizes[left].tolist())
        exact = [divmod(count * size, total) for size in sizes[left].tolist()]
        parts = np.array([whole for whole, _ in exact])
        largest = sorted(range(len(left)), key=lambda i: (-exact[i][1], i))
        parts[largest[: count - int(parts.sum())]] += 1
        without = parts == 0
        if not (at_least_one and without.any()):
            shares[left] = parts
            break
        shares[left[without]] = 1
        count -= int(without.sum())
        left = left[~without]
    return shares


def read_ids(path: epath.PathLike) -> UInt64[np.ndarray, "s"]:
    """Row ids from a .npy file of whole numbers, or a text file with one on each line.

    Raises:
      InputError: no such file, none or the same id twice in it, or something that is not an id.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"trajectories.slice_ids: {path} does not exist.")
    ids = _read_npy(path) if path.suffix == ".npy" else _read_text(path)
    values, counts = np.unique(ids, return_counts=True)
    if not len(ids) or len(values) < len(ids):
        found = ", ".join(map(str, values[counts > 1][:_SHOWN])) or "no ids"
        raise InputError(f"{path}: needs at least one id, and each once; found {found} among {len(ids)}.")
    return ids


def rows_in_pool(
    tracked: UInt64[np.ndarray, "s"] | None, ids: UInt64[np.ndarray, "n"], path: epath.PathLike
) -> Int64[np.ndarray, "s"] | None:
    """The pool row of each tracked example, which must come in the pool's order; None for all rows.

    Args:
      tracked: ids of the examples whose trajectories there are; None for those of the whole pool.
      ids: of the pool's rows.
      path: where the trajectories are, for errors.

    Raises:
      InputError: some are not in the pool, or they come in another order.
    """
    if tracked is None or np.array_equal(tracked, ids):
        return None
    if len(tracked) == len(ids):
        other = np.flatnonzero(tracked != ids)
        first = ", ".join(f"row {n}: {tracked[n]} for the pool's {ids[n]}" for n in other[:_SHOWN])
        raise InputError(
            f"{path}: {len(other)} ids differ from the pool's; the first: {first}. The pool must hold the "
            "same rows in the same order."
        )
    rows = _rows_of(tracked, ids, path)
    if (np.diff(rows) <= 0).any():
        raise InputError(f"{path}: its examples are not in the pool's order, or come more than once.")
    return rows


def _rows_of(
    wanted: UInt64[np.ndarray, "s"], ids: UInt64[np.ndarray, "n"], path: epath.PathLike
) -> Int64[np.ndarray, "s"]:
    order = np.argsort(ids, kind="stable")
    places = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
    rows = order[places]
    if len(strange := wanted[ids[rows] != wanted]):
        raise InputError(
            f"{path}: {len(strange)} of {len(wanted)} ids are not in the pool; the first: "
            f"{', '.join(map(str, strange[:_SHOWN]))}. Ids are those in clusters.parquet and the trajectory "
            "store, not row numbers."
        )
    return rows.astype(np.int64)


def _read_npy(path: epath.Path) -> UInt64[np.ndarray, "s"]:
    ids = artifacts.read_npy(path)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or (ids < 0).any():
        raise InputError(
            f"{path}: needs whole numbers [S] of at least 0, holds {ids.dtype}{list(ids.shape)}."
        )
    return ids.astype(np.uint64)


def _read_text(path: epath.Path) -> UInt64[np.ndarray, "s"]:
    try:
        lines = path.read_text().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: neither a .npy file nor text ({error}).") from error
    ids = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and int(text) < 2**64):
            raise InputError(
                f"{path}, line {number}: {text[:40]!r} is not a row id, a whole number below 2**64."
            )
        ids.append(int(text))
    return np.array(ids, np.uint64)
