"""Telling files that are as they were written from damaged ones, by digests that are kept beside them."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError

_PART = 2**24  # bytes read at a time
_CHECKSUM = "checksum"  # of a JSON object or of arrays, under this name among them


def digest(file: epath.PathLike) -> str:
    """SHA-256 of a file, in hex: about a second for each gigabyte."""
    found = hashlib.sha256()
    # hashlib.file_digest needs `readinto`, which TensorFlow's files lack.
    with epath.Path(file).open("rb") as opened:
        while part := opened.read(_PART):
            found.update(part)
    return found.hexdigest()


def digests(folder: epath.PathLike, names: Iterable[str]) -> dict[str, str]:
    """The digest of each file that is named from `folder`, and of those below each folder that is."""
    folder = epath.Path(folder)
    files = [file for name in names for file in _files(folder / name)]
    return {file.relative_to(folder).as_posix(): digest(file) for file in files}


def damage(folder: epath.PathLike, kept: Mapping[str, str], shown: epath.PathLike | None = None) -> str:
    """What is wrong with the first of the files that is not as `kept` (of `digests`) has it; "" if none is.

    `shown` is the folder that is named, where `folder` is a copy of it.
    """
    folder = epath.Path(folder)
    for name, before in kept.items():
        file, place = folder / name, epath.Path(shown or folder) / name
        if not file.exists():
            return f"{place} is gone"
        if digest(file) != before:
            return f"{place} is not as it was written"
    return ""


def check(
    folder: epath.PathLike, kept: Mapping[str, str], fix: str, shown: epath.PathLike | None = None
) -> None:
    """Raise InputError for `damage`; `fix` says the way out."""
    if found := damage(folder, kept, shown):
        raise InputError(f"{found}: {fix}.")


def write_json(path: epath.PathLike, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its own checksum in it, atomically."""
    stored = json.loads(json.dumps(dict(value), default=artifacts.plain))
    artifacts.write_json(path, stored | {_CHECKSUM: _checksum(stored)})


def read_json(path: epath.PathLike, fix: str) -> dict[str, Any]:
    """What `write_json` was given.

    Raises:
      InputError: it is gone or not as it was written; `fix` says the way out.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"{path} is gone: {fix}.")
    try:
        stored = artifacts.read_json(path)
    except InputError as error:
        raise InputError(f"{path} is not as it was written: {fix}.") from error
    if not isinstance(stored, dict) or stored.pop(_CHECKSUM, None) != _checksum(stored):
        raise InputError(f"{path} is not as it was written: {fix}.")
    return stored


def write_npz(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays in NumPy's .npz format with a checksum of them in it, atomically."""
    buffer = io.BytesIO()
    checksum = np.frombuffer(bytes.fromhex(_checksum_of(arrays)), np.uint8)
    stored: dict[str, Any] = {**arrays, _CHECKSUM: checksum}
    np.savez(buffer, **stored)
    artifacts.write_bytes(path, buffer.getvalue())


def read_npz(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The arrays that `write_npz` was given; raises InputError where they are not."""
    path = epath.Path(path)
    with artifacts.naming(path, ".npz file"):
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = dict(stored)
        if arrays.pop(_CHECKSUM).tobytes().hex() != _checksum_of(arrays):
            raise ValueError("it is not as it was written")
    return arrays


def _checksum_of(arrays: Mapping[str, np.ndarray]) -> str:
    described = {name: [str(array.dtype), array.shape] for name, array in arrays.items()}
    found = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()


def _files(path: epath.Path) -> list[epath.Path]:
    return artifacts.files_under(path) if path.is_dir() else [path]


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
