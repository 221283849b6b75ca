"""Row ids: 64-bit hashes of what a row says, distinct within a pool."""

import collections
import hashlib
import struct
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64


def ids_sha256(ids: UInt64[np.ndarray, " n"]) -> str:
    """The SHA-256 of the ids of rows, in order: those of two pools are equal where their rows are."""
    return hashlib.sha256(np.ascontiguousarray(ids, np.uint64).data).hexdigest()


class RowIds:
    """Hands out the ids of one pass over a pool."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._repeats: collections.Counter[int] = collections.Counter()  # of contents met before, by first id

    def assign(self, content: bytes) -> tuple[int, bool]:
        """The id of the next row with this content, and whether the content came before.

        The k-th row of one content (k = 0, 1, ...) gets the 8-byte BLAKE2b hash of the content,
        followed by k as 8 bytes when k is not 0.
        """
        first = id_ = _hash(content, 0)
        while id_ in self._taken:
            self._repeats[first] += 1
            id_ = _hash(content, self._repeats[first])
        self._taken.add(id_)
        return id_, id_ != first


def joined(texts: Sequence[str]) -> bytes:
    """The texts as one content, with their lengths before them, so that no two lists are alike."""
    lengths = struct.pack(f"<{len(texts)}Q", *map(len, texts))
    return lengths + "".join(texts).encode()


def _hash(content: bytes, occurrence: int) -> int:
    if occurrence:
        content += occurrence.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
