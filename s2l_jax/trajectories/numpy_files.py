"""Trajectories in NumPy's .npy and .npz files, read a block at a time."""

import math
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from etils import epath

from s2l_jax.errors import InputError

_BLOCK = 2**24  # bytes read at a time
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_numpy(path: epath.Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Losses, steps and ids; the last two are None where the file has none.

    Which of the two formats it is, the content tells. Losses of any float type become float32 while
    they are read, so a float64 matrix is never in memory whole.

    Raises:
      InputError: a file that is neither or is cut off, or an .npz without an array `losses`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start != b"PK\x03\x04":
                return _read_array(file, to_float32=True), None, None
            with zipfile.ZipFile(file) as archive:
                names = {name.removesuffix(".npy"): name for name in archive.namelist()}
                arrays = {}
                for name in {"losses", "steps", "ids"} & set(names):
                    with archive.open(names[name]) as member:
                        arrays[name] = _read_array(member, to_float32=name == "losses")
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable NumPy file ({error}).") from error
    if "losses" not in arrays:
        raise InputError(f"{path}: holds {sorted(names)}, but no array named `losses`.")
    return arrays["losses"], arrays.get("steps"), arrays.get("ids")


def _read_array(file: IO[bytes], *, to_float32: bool) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"unknown version {version} of the format")
    shape, by_column, stored = _HEADERS[version](file)
    if stored.hasobject:
        raise ValueError("it holds Python objects")
    array = np.empty(shape, np.float32 if to_float32 and stored.kind == "f" else stored)
    rows: Any = np.atleast_1d(array.T if by_column else array)
    row_bytes = math.prod(rows.shape[1:]) * stored.itemsize
    if not rows.size:
        return array
    step = max(1, _BLOCK // row_bytes)
    for first in range(0, len(rows), step):
        block = rows[first : first + step]
        content = _read_exactly(file, len(block) * row_bytes)
        block[...] = np.frombuffer(content, stored).reshape(block.shape)
    return array


def _read_exactly(file: IO[bytes], count: int) -> bytes:
    parts, missing = [], count
    while missing:
        parts.append(file.read(missing))
        if not parts[-1]:
            raise ValueError(f"{missing} of its bytes are missing")
        missing -= len(parts[-1])
    return b"".join(parts)
