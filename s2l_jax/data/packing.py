"""Packing: the examples of one step, or of a slice, into as few rows of fixed length as fit."""

import bisect
import collections
import dataclasses
import heapq
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32


class PackedRows(NamedTuple):
    """Rows of packed examples in `a` microbatches of `g` groups, a group to a mesh shard of rows.

    NumPy arrays on the host, jax arrays on devices. Only response tokens are predicted, so the
    positions whose logits are needed are listed flat per group: `loss_index` points into the
    group's r x l tokens, at the token *before* the target.
    """

    tokens: Int32[Any, "a g r l"]
    positions: Int32[Any, "a g r l"]  # within the example, from 0
    segments: Int32[Any, "a g r l"]  # example number within the row, from 1; 0 is padding
    loss_index: Int32[Any, "a g m"]
    loss_targets: Int32[Any, "a g m"]
    loss_slot: Int32[Any, "a g m"]  # which of the group's e examples; e itself for padding
    loss_mask: Bool[Any, "a g m"]
    weights: Float32[np.ndarray, "a g e"]  # of each example in an example-mean loss; 0 for no example
    examples: Int32[Any, "a g r l"] | None = None  # pool row of each token, where dropout is to follow it
    prefix: Int32[Any, "a g p"] | None = None  # tokens before each segment that no row holds; alike in all


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """Sizes of a packed batch per microbatch and group; equal shapes share a compiled program."""

    rows: int
    loss_tokens: int
    examples: int

    def covers(self, other: "Shape") -> bool:
        """Whether a batch of shape `other` fits."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return all(size >= needed for size, needed in zip(mine, theirs, strict=True))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each example of a batch goes: rows of example indices by microbatch and group."""

    groups: list[list[list[list[int]]]]  # [microbatch][group][row][example]
    shape: Shape  # the least that holds it


def best_fit(lengths: Int[np.ndarray, "n"], capacities: Sequence[int]) -> list[list[int]]:
    """Best-fit decreasing bin packing: example indices by row, in O(n) time for fixed capacities.

    Each example, longest first and ties by index, goes to the fullest row that still has room; where none
    has, to a new row of the least capacity that holds it. So a row's first example tells its capacity.

    Raises:
      ValueError: an example is longer than any row.
    """
    capacities = sorted(capacities)
    order = np.argsort(-lengths, kind="stable")
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(capacities[-1] + 1)]  # by free space
    occupied = 0  # bit s is set when a row with s free tokens is open
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if length > capacities[-1]:
            raise ValueError(f"an example of {length} tokens does not fit a row of {capacities[-1]}")
        candidates = occupied >> length
        if candidates:
            free = length + (candidates & -candidates).bit_length() - 1
            row = open_rows[free].pop()
            if not open_rows[free]:
                occupied &= ~(1 << free)
        else:
            free, row = capacities[bisect.bisect_left(capacities, length)], len(rows)
            rows.append([])
        rows[row].append(index)
        open_rows[free - length].append(row)
        occupied |= 1 << (free - length)
    return rows


def lay_out(
    lengths: Int[np.ndarray, "n"],
    loss_tokens: Int[np.ndarray, "n"],
    row_length: int,
    *,
    microbatches: int,
    groups: int,
    pack: bool = True,
) -> Layout:
    """Pack examples into rows of `row_length` tokens, and `deal` them; unpacked, each has a row of its own.

    `lengths` are the tokens and `loss_tokens` the response tokens of each example.
    """
    rows = best_fit(lengths, [row_length]) if pack else [[i] for i in range(len(lengths))]
    return deal(rows, loss_tokens, microbatches=microbatches, groups=groups)


def deal(
    rows: list[list[int]], loss_tokens: Int[np.ndarray, "n"], *, microbatches: int, groups: int
) -> Layout:
    """Deal packed rows out to microbatches and groups, equally many to each, loss tokens alike."""
    bins = microbatches * groups
    per_bin = -(-len(rows) // bins)
    loads = [int(loss_tokens[row].sum()) for row in rows]
    dealt: list[list[list[int]]] = [[] for _ in range(bins)]
    totals = [0] * bins
    lightest = [(0, b) for b in range(bins)]  # a heap of the bins with room
    for row in sorted(range(len(rows)), key=lambda r: (-loads[r], r)):
        total, to = heapq.heappop(lightest)
        dealt[to].append(rows[row])
        totals[to] = total + loads[row]
        if len(dealt[to]) < per_bin:
            heapq.heappush(lightest, (totals[to], to))
    shape = Shape(per_bin, max(totals), max(sum(map(len, b)) for b in dealt))
    return Layout([dealt[m * groups : (m + 1) * groups] for m in range(microbatches)], shape)


def fill(
    layout: Layout,
    shape: Shape,
    row_length: int,
    examples: dict[int, tuple[Int32[np.ndarray, "l"], Int[np.ndarray, "m"]]],
    weights: Float32[np.ndarray, "n"],
    groups: Sequence[int],
    pool_rows: Int[np.ndarray, "n"] | None = None,
    skip: int = 0,
) -> tuple[PackedRows, Int32[np.ndarray, "a g e"]]:
    """The arrays of a layout for the given groups, and the example index in each slot (-1: none).

    Args:
      layout: from `lay_out`, of rows as long.
      shape: at least the layout's own.
      examples: token ids, and the places of those that have a loss, by example index, for the examples in
        `groups`.
      weights: of every example of the batch; written for examples with response tokens alone.
      groups: the row groups that this process provides.
      pool_rows: of every example of the batch, to be written for each token; None: left out.
      skip: tokens that every example begins with and that are left out, all before those that
        losses are computed at; positions count them.
    """
    a, g, e, m = len(layout.groups), len(groups), shape.examples, shape.loss_tokens
    tokens, positions, segments = (np.zeros((a, g, shape.rows, row_length), np.int32) for _ in range(3))
    index, targets = (np.zeros((a, g, m), np.int32) for _ in range(2))
    slot, mask = np.full((a, g, m), e, np.int32), np.zeros((a, g, m), np.bool_)
    named = None if pool_rows is None else np.zeros_like(tokens)
    slot_weights, indices = np.zeros((a, g, e), np.float32), np.full((a, g, e), -1, np.int32)
    for i, microbatch in enumerate(layout.groups):
        for j, group in enumerate(groups):
            used = filled = 0
            for r, row in enumerate(microbatch[group]):
                at = 0
                for segment, example in enumerate(row, start=1):
                    ids, places = examples[example]
                    n = len(ids) - skip
                    tokens[i, j, r, at : at + n] = ids[skip:]
                    positions[i, j, r, at : at + n] = np.arange(skip, len(ids))
                    segments[i, j, r, at : at + n] = segment
                    if named is not None and pool_rows is not None:
                        named[i, j, r, at : at + n] = pool_rows[example]
                    count = len(places)
                    span = slice(filled, filled + count)
                    index[i, j, span] = r * row_length + at - skip + places - 1
                    targets[i, j, span] = ids[places]
                    slot[i, j, span], mask[i, j, span] = used, True
                    slot_weights[i, j, used] = weights[example] if count else 0.0
                    indices[i, j, used] = example
                    at, filled, used = at + n, filled + count, used + 1
    packed = PackedRows(tokens, positions, segments, index, targets, slot, mask, slot_weights, named)
    return packed, indices


def slot_indices(layout: Layout, num_slots: int) -> Int32[np.ndarray, "a g e"]:
    """The example index in each slot of all groups, as `fill` places them (-1: none)."""
    indices = np.full((len(layout.groups), len(layout.groups[0]), num_slots), -1, np.int32)
    for i, microbatch in enumerate(layout.groups):
        for j, group in enumerate(microbatch):
            held = [example for row in group for example in row]
            indices[i, j, : len(held)] = held
    return indices


def choose_shapes(shapes: list[Shape], most: int = 3) -> list[Shape]:
    """At most `most` shapes that cover all of `shapes` with the least padding, smallest first.

    Cost is counted in rows. The loss tokens and examples of a chosen shape are the most that a batch of at
    most its rows needs, rounded up so that runs on other subsets share compiled programs.
    """
    if not shapes:
        return []
    counts = collections.Counter(shape.rows for shape in shapes)
    sizes = sorted(counts)
    within = dict(zip(sizes, itertools.accumulate(counts[size] for size in sizes), strict=True))

    def cost(ends: tuple[int, ...]) -> int:
        """Rows of all batches, each padded to the least of the ends (largest first) that holds it."""
        pairs = zip(ends, (*ends[1:], 0), strict=True)
        return sum(end * (within[end] - within.get(below, 0)) for end, below in pairs)

    smaller = itertools.combinations(sizes[-2::-1], min(most, len(sizes)) - 1)
    ends: tuple[int, ...] = min(((sizes[-1], *others) for others in smaller), key=cost)
    chosen = {}  # by rows as rounded: of those that come out alike, the last is the largest
    for rows in reversed(ends):
        below = [s for s in shapes if s.rows <= roughly(rows)]
        chosen[roughly(rows)] = Shape(
            roughly(rows),
            roughly(max(s.loss_tokens for s in below), least=8),
            roughly(max(s.examples for s in below), least=8),
        )
    return list(chosen.values())


def roughly(n: int, least: int = 1) -> int:
    """`n` rounded up to a multiple of a sixteenth of the power of two above it, and of `least`."""
    step = max(least, 1 << max(0, n.bit_length() - 4))
    return max(step, -(-n // step) * step)
