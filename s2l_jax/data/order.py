"""Orders that are pure functions, with no table: of visits by seed and position, of draws by seed and id."""

import numpy as np
from jaxtyping import Int, Int64, UInt64

_ROUNDS = 6


def visit_order(positions: Int[np.ndarray, "n"], size: int, seed: int) -> Int64[np.ndarray, "n"]:
    """Which of `size` examples stands at each position of an endless stream of shuffled epochs.

    Every epoch (a run of `size` positions) holds each example once. A batch that reaches past the
    end of an epoch goes on into the next one's order. Each epoch's shuffle is a keyed Feistel
    permutation, so any position is known without shuffling the rest, for pools of any size.
    """
    positions = np.asarray(positions, np.int64)
    epochs, within = np.divmod(positions, size)
    keys = mix(np.uint64(seed) ^ mix(epochs.astype(np.uint64)))
    half = max(1, (int(size - 1).bit_length() + 1) // 2)
    out = _feistel(within.astype(np.uint64), keys, half)
    # The permutation acts on a power of four at least `size`: walk its cycle back into range.
    while (outside := out >= size).any():
        out[outside] = _feistel(out[outside], keys[outside], half)
    return out.astype(np.int64)


def mix(x: UInt64[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    """The splitmix64 finaliser: a well-mixed 64-bit hash (Steele, Lea & Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def priorities(ids: UInt64[np.ndarray, "n"], seed: int) -> UInt64[np.ndarray, "n"]:
    """A random-looking number per example, a function of (seed, id) alone: the smallest go first.

    A draw by priority depends on nothing but the candidates. So where a few labels change, a few
    picks change, and a larger budget on the same clusters keeps what a smaller one took.
    """
    return mix(mix(np.asarray(ids, np.uint64)) ^ mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)))


def _feistel(x: UInt64[np.ndarray, "n"], keys: UInt64[np.ndarray, "n"], half: int) -> UInt64[np.ndarray, "n"]:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = x >> bits, x & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (mix(right ^ mix(keys + np.uint64(number))) & mask)
    return (left << bits) | right
