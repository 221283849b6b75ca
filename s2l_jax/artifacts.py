"""Atomic writing, and reading, of a run's files, on local disks and object stores alike."""

import io
import json
import os
import uuid
from typing import Any

import numpy as np
from etils import epath


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new one, never a part."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: epath.PathLike, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically; refuses NaN and infinity, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=plain) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Parse a JSON file."""
    return json.loads(epath.Path(path).read_text())


def write_npy(path: epath.PathLike, array: np.ndarray) -> None:
    """Write one array in NumPy's .npy format, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_npy(path: epath.PathLike, *, mmap: bool = False) -> np.ndarray:
    """Read a .npy file; with `mmap` and a local path the array stays on disk."""
    path = epath.Path(path)
    local = os.fspath(path)
    if os.path.exists(local):
        return np.load(local, mmap_mode="r" if mmap else None, allow_pickle=False)
    return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)


def plain(value: Any) -> Any:
    """NumPy values as JSON has them; a `default` for json.dumps."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")
