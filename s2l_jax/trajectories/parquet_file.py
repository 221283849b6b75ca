"""Trajectories in a Parquet file, one row per example."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32

from s2l_jax.errors import InputError

_STEP = re.compile(r"step_(\d+)")
_BATCH = 2**16  # rows decoded at a time
_BUFFER = 2**20  # bytes read at a time, per column


def read_parquet(path: epath.Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Losses, steps and ids of a file with one row per example; one column is read at a time.

    Losses are in one column per step (`step_500`, `step_1000`, ..., taken in the order of their
    numbers) or in one column `losses` of lists, all of one length. The steps of lists are a JSON list
    under the key `steps` of the file's metadata, None where it has none. Ids are in the column `id`,
    None where there is none. Other columns are left unread.

    Raises:
      InputError: no Parquet, neither or both of the layouts, a missing value, lists of different
        lengths, or a column of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            # The defaults would fetch a whole row group, which may be the whole file.
            table = pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
            schema = table.schema_arrow
            by_step = sorted((int(m[1]), name) for name in schema.names if (m := _STEP.fullmatch(name)))
            if bool(by_step) == ("losses" in schema.names):
                raise InputError(
                    f"{path}: has the columns {', '.join(schema.names[:20])}; needs either one column "
                    "per step (step_500, step_1000, ...) or one column `losses` of lists."
                )
            n, steps = table.metadata.num_rows, _listed_steps(path, schema.metadata or {})
            if by_step:
                steps = np.array([step for step, _ in by_step])
                losses = np.empty((n, len(by_step)), np.float32)
                for place, (_, name) in enumerate(by_step):
                    for rows, values in _batches(path, table, name, pa.types.is_floating, "floats"):
                        losses[rows, place] = values.to_numpy(zero_copy_only=False)
            else:
                losses = _read_lists(path, table, n)
            ids = _read_ids(path, table, n) if "id" in schema.names else None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}).") from error
    return losses, steps, ids


def _batches(
    path: epath.Path, table: Any, name: str, accepts: Callable[[Any], bool], wanted: str
) -> Iterator[tuple[slice, Any]]:
    kind = table.schema_arrow.field(name).type
    if not accepts(kind):
        raise InputError(f"{path}: the column `{name}` has the type {kind}; {wanted} are needed.")
    start = 0
    for batch in table.iter_batches(batch_size=_BATCH, columns=[name]):
        values = batch.column(0)
        _check_nulls(path, name, values, start)
        yield slice(start, start + len(values)), values
        start += len(values)


def _check_nulls(path: epath.Path, name: str, values: Any, start: int, per_row: int = 1) -> None:
    if values.null_count:
        row = start + int(np.flatnonzero(values.is_null())[0]) // per_row
        raise InputError(
            f"{path}: row {row} (from 0) has no value in the column `{name}`; where an example has no "
            "loss, write 0."
        )


def _read_lists(path: epath.Path, table: Any, n: int) -> Float32[np.ndarray, "n t"]:
    import pyarrow as pa
    import pyarrow.compute as pc

    def accepts(kind: Any) -> bool:
        tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        return any(test(kind) for test in tests) and pa.types.is_floating(kind.value_type)

    losses = np.empty((n, 0), np.float32)
    for rows, values in _batches(path, table, "losses", accepts, "lists of floats"):
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        if not rows.start:
            losses = np.empty((n, lengths[0]), np.float32)
        other = np.flatnonzero(lengths != losses.shape[1])
        if len(other):
            raise InputError(
                f"{path}: row {rows.start + other[0]} (from 0) has {lengths[other[0]]} losses, row 0 has "
                f"{losses.shape[1]}; every example needs one for each checkpoint."
            )
        flat = values.flatten()
        _check_nulls(path, "losses", flat, rows.start, max(losses.shape[1], 1))
        losses[rows] = flat.to_numpy(zero_copy_only=False).reshape(len(values), losses.shape[1])
    return losses


def _read_ids(path: epath.Path, table: Any, n: int) -> np.ndarray:
    import pyarrow as pa

    unsigned = pa.types.is_unsigned_integer(table.schema_arrow.field("id").type)
    ids = np.empty(n, np.uint64 if unsigned else np.int64)
    for rows, values in _batches(path, table, "id", pa.types.is_integer, "whole numbers"):
        ids[rows] = values.to_numpy(zero_copy_only=False)
    return ids


def _listed_steps(path: epath.Path, metadata: dict[bytes, bytes]) -> np.ndarray | None:
    if b"steps" not in metadata:
        return None
    text = metadata[b"steps"].decode(errors="backslashreplace")
    try:
        return np.array(json.loads(text))
    except ValueError as error:
        raise InputError(
            f"{path}: the metadata's `steps` is {text[:80]!r}; a JSON list of numbers is needed."
        ) from error
