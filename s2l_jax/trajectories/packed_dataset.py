"""Examples packed once, in a fixed order, and kept on the devices."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int32, Int64

from s2l_jax.data.batching import (
    Examples,
    Size,
    example_places,
    loss_token_counts,
    row_length,
    shared_prefix,
    size_of,
)
from s2l_jax.data.order import visit_order
from s2l_jax.data.packing import Layout, PackedRows, Shape, best_fit, deal, fill, roughly
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import local_groups, put_rows

_BYTES_A_TOKEN = 3 * 4  # token, position, segment
_SCANNED_AT_MOST = 64  # microbatches of one streamed block
_SHORTEST_ROW = 128  # tokens; what accelerators work on at a time

Block = tuple[PackedRows, Int32[Array, "a g e"]]


@dataclasses.dataclass(frozen=True)
class Part:
    """The blocks whose rows are of one length: one compiled program."""

    row_length: int
    layouts: list[Layout]
    shape: Shape

    def empty_block(self, skip: int) -> tuple[PackedRows, Int32[np.ndarray, "a g e"]]:
        """A block without examples, of all row groups, whose rows leave out `skip` tokens."""
        microbatches, groups = len(self.layouts[0].groups), len(self.layouts[0].groups[0])
        layout = Layout([[[] for _ in range(groups)] for _ in range(microbatches)], self.shape)
        nothing = np.zeros(0, np.float32)
        return fill(layout, self.shape, self.row_length, {}, nothing, range(groups), skip=skip)


class Packing:
    """How examples are packed into rows.

    Rows are of few lengths (`row_lengths`), and an example is in the shortest that holds it or fills
    a gap of a longer one: attention takes time by the square of a row.

    Args:
      examples: tokenised.
      indices: which of them are packed; what is measured comes out in this order.
      max_length: most tokens of an example.
      batch_tokens: tokens that a device works on at a time; 0: as many as suit its kind.
      pinned_bytes: device memory that rows may take; more of them are made in blocks.
      share_prefix: leave out of the rows what all of them begin with; it is in `prefix` then.
    """

    prefix: Int32[np.ndarray, "p"]  # before every example's own tokens, whose positions count them
    parts: list[Part]
    pinned: bool  # whether all of it is kept on the devices

    def __init__(
        self,
        examples: Examples,
        indices: Int64[np.ndarray, "n"],
        mesh: Mesh,
        *,
        max_length: int,
        batch_tokens: int = 0,
        pinned_bytes: int,
        share_prefix: bool = True,
    ):
        self._loss_tokens = loss_token_counts(examples, indices)
        whole = np.asarray(examples.lengths[indices])
        self.prefix = shared_prefix(examples, indices) if share_prefix else np.zeros(0, np.int32)
        lengths = whole - len(self.prefix)
        capacities = row_lengths(row_length(lengths, max_length))
        by_capacity: dict[int, list[list[int]]] = {capacity: [] for capacity in capacities}
        for row in best_fit(lengths, capacities):
            by_capacity[next(c for c in capacities if c >= lengths[row[0]])].append(row)
        # On a CPU as many as leave a layer's activations in its cache.
        batch_tokens = batch_tokens or (1024 if mesh.devices.flat[0].platform == "cpu" else 16_384)
        groups = row_groups(mesh)
        tokens = sum(capacity * len(rows) for capacity, rows in by_capacity.items())
        self.bytes_a_device = tokens // groups * _BYTES_A_TOKEN
        self.pinned = self.bytes_a_device <= pinned_bytes
        self.parts = [
            self._part(capacity, rows, batch_tokens, groups, most=None if self.pinned else _SCANNED_AT_MOST)
            for capacity, rows in by_capacity.items()
            if rows
        ]

    def _part(
        self, capacity: int, rows: list[list[int]], batch_tokens: int, groups: int, most: int | None
    ) -> Part:
        # Rows come longest first; shuffled, every microbatch has about as many response tokens.
        rows = [rows[i] for i in visit_order(np.arange(len(rows)), len(rows), seed=0)]
        microbatches = math.ceil(len(rows) / (groups * max(1, batch_tokens // capacity)))
        per_group = math.ceil(len(rows) / (groups * microbatches))
        microbatches = min(microbatches, most or microbatches)
        size = microbatches * groups * per_group
        layouts = []
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            some += [[] for _ in range(size - len(some))]
            layouts.append(deal(some, self._loss_tokens, microbatches=microbatches, groups=groups))
        shape = Shape(
            per_group,
            roughly(max(layout.shape.loss_tokens for layout in layouts), least=8),
            roughly(max(layout.shape.examples for layout in layouts), least=8),
        )
        return Part(capacity, layouts, shape)


class PackedDataset(Packing):
    """Packed examples on the devices, in blocks that few compiled programs take; arguments as of `Packing`.

    All of it is kept on the devices as long as it fits in `pinned_bytes` per device; a larger one is
    cut into blocks that are packed and sent, each while the one before it is worked on.
    """

    def __init__(self, examples: Examples, indices: Int64[np.ndarray, "n"], mesh: Mesh, **options: Any):
        super().__init__(examples, indices, mesh, **options)
        self._examples, self.indices, self._mesh = examples, indices, mesh
        self._pinned = jax.block_until_ready(list(self._built())) if self.pinned else None

    def __len__(self) -> int:
        return len(self.indices)

    def blocks(self) -> Iterator[Block]:
        """The packed rows, and the place in `indices` of each example slot (-1 for none)."""
        if self._pinned is not None:
            yield from self._pinned
            return
        building = self._built()
        ahead = next(building)
        for following in building:
            yield ahead
            ahead = following
        yield ahead

    def _built(self) -> Iterator[Block]:
        local = local_groups(self._mesh)
        weights, skip = np.ones(len(self.indices), np.float32), len(self.prefix)
        for part in self.parts:
            for layout in part.layouts:
                mine = [n for m in layout.groups for g in local for row in m[g] for n in row]
                numbers = [int(self.indices[n]) for n in mine]
                tokens = self._examples.read(numbers)
                places = (example_places(self._examples, number) for number in numbers)
                texts = {n: (ids, p) for n, ids, p in zip(mine, tokens, places, strict=True)}
                block = fill(layout, part.shape, part.row_length, texts, weights, local, skip=skip)
                yield put_rows(self._mesh, block, axis=1)


def sweep_size(examples: Examples, indices: Int64[np.ndarray, "n"], *, share_prefix: bool) -> Size:
    """How much work a sweep is: what all examples begin with counts once, if it is shared."""
    return size_of(examples, indices, len(shared_prefix(examples, indices)) if share_prefix else 0)


def row_lengths(longest: int) -> list[int]:
    """The lengths of rows for examples of up to `longest` tokens: 128, 256, ..., and the longest."""
    shorter: list[int] = []
    while (length := _SHORTEST_ROW << len(shorter)) <= 0.75 * longest:
        shorter.append(length)
    return [*shorter, longest]
