"""Row ids: 64-bit hashes of what a row says, distinct within a pool, in bounded memory per row."""

import hashlib
import struct
from array import array
from collections.abc import Sequence

_FIRST_NUM_SLOTS = 1024  # a power of two


class IdTable:
    """A set of uint64 keys other than 0, held in one flat array by open addressing.

    It takes 11 to 21 bytes per key, and half as much again while it grows: 1.1 GB for 10^8 keys,
    where a Python set of integers takes 8 GB. Keys must be spread evenly over their low bits, as
    hashes are.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_NUM_SLOTS))
        self._num_keys = 0

    def __len__(self) -> int:
        return self._num_keys

    def __contains__(self, key: int) -> bool:
        return self._slots[_slot_of(key, self._slots)] == key

    def add(self, key: int) -> bool:
        """Add `key`; False where it was there already."""
        slot = _slot_of(key, self._slots)
        if self._slots[slot]:
            return False
        self._slots[slot] = key
        self._num_keys += 1
        if 4 * self._num_keys > 3 * len(self._slots):
            self._grow()
        return True

    def _grow(self) -> None:
        old = self._slots
        new = array("Q", bytes(16 * len(old)))
        for key in old:
            if key:
                new[_slot_of(key, new)] = key
        self._slots = new


def _slot_of(key: int, slots: array) -> int:
    """The slot that holds `key`, or else the free one where it belongs."""
    last = len(slots) - 1
    slot = key & last
    while (held := slots[slot]) and held != key:
        slot = (slot + 1) & last
    return slot


class RowIds:
    """Hands out the ids of one pass over a pool."""

    def __init__(self) -> None:
        self._taken = IdTable()

    def assign(self, content: bytes) -> tuple[int, bool]:
        """The id of the next row with this content, and whether the content came before.

        The k-th row of one content (k = 0, 1, ...) gets the 8-byte BLAKE2b hash of the content,
        followed by k as 8 bytes when k is not 0. How many came before is not stored but found in
        the table, by doubling and then bisection: O(log k) look-ups.
        """
        first = _hash(content, 0)
        if self._taken.add(first):
            return first, False
        taken, free = 0, 1
        while _hash(content, free) in self._taken:
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            if _hash(content, middle) in self._taken:
                taken = middle
            else:
                free = middle
        repeat = _hash(content, free)
        self._taken.add(repeat)
        return repeat, True


def joined(texts: Sequence[str]) -> bytes:
    """The texts as one content, with their lengths before them, so that no two lists are alike."""
    lengths = struct.pack(f"<{len(texts)}Q", *map(len, texts))
    return lengths + "".join(texts).encode()


def _hash(content: bytes, occurrence: int) -> int:
    if occurrence:
        content += occurrence.to_bytes(8, "little")
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1  # 0 marks a free slot of the table
