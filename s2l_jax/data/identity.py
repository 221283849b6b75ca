"""Telling whether a pool's data is the data that was there before."""

import hashlib
import os

from etils import epath

from s2l_jax import artifacts

_CHUNK = 2**24  # bytes
_PREFIXES = ("hub", "tfds")


def data_identity(path: str) -> str:
    """Names and content hashes of the files a path stands for, or the path where it names none.

    It is a file, a folder, a glob, several with commas between, or the name of a dataset; `hub:` or `tfds:`
    before a folder changes nothing.
    """
    # An empty path would stand for the working directory.
    return ",".join(identity for part in path_parts(path) if part for identity in _identities(part))


def path_parts(path: str) -> list[str]:
    """What a path with commas names: one file with commas in its name if there is such a one."""
    if path and epath.Path(path).exists():
        return [path]
    return [os.path.expanduser(part.strip()) for part in path.split(",")]


def split_prefix(part: str) -> tuple[str, str]:
    """A dataset's `hub:` or `tfds:`, without the colon, and the rest; "" and all of it without either."""
    prefix, _, rest = part.partition(":")
    return (prefix, os.path.expanduser(rest)) if prefix in _PREFIXES and rest else ("", part)


def _identities(part: str) -> list[str]:
    where = epath.Path(split_prefix(part)[1])
    if where.is_dir():
        files = artifacts.files_under(where)
    elif where.exists():
        files = [where]
    else:
        files = artifacts.matching_files(part)
    return [f"{file.name}:{_digest(file)}" for file in files] or [part]


def _digest(file: epath.Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:  # hashlib.file_digest needs `readinto`, which TensorFlow's files lack
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
