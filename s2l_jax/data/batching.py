"""The training batches: which examples each step sees, packed, and read ahead by Grain."""

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

from s2l_jax.data.order import visit_order
from s2l_jax.data.packing import Layout, PackedRows, Shape, choose_shapes, fill, lay_out, slot_indices
from s2l_jax.data.responses import Gaps, loss_places, num_loss_tokens

_PLANNED_STEPS = 32_768  # steps laid out ahead to choose shapes; seconds of work
_ROW_MULTIPLE = 32
_SHORTEST_PREFIX = 8  # tokens; fewer are not worth keys and values of their own


class Examples(Protocol):
    """Tokenised examples by number."""

    lengths: Int[np.ndarray, "n"]  # tokens, end-of-sequence included
    prompt_lengths: Int[np.ndarray, "n"]  # tokens; equal to the length when no response is left
    gaps: Gaps  # between the responses of examples that have several
    common_prefix: Int32[np.ndarray, "p"]  # tokens that all begin with

    def read(self, indices: Sequence[int]) -> list[Int32[np.ndarray, "_"]]:
        """Token ids of some examples."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """One optimiser step's examples as this process provides them."""

    step: int  # 0 is the first
    examples: Int64[np.ndarray, "b"]  # pool rows, all processes
    rows: PackedRows
    size: "Size"  # all processes
    slots: Int32[np.ndarray, "a g e"]  # place in `examples` of each slot, -1 for none; all processes


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work some examples are, padding not counted."""

    tokens: int
    loss_tokens: int
    pairs: int  # (query, key) pairs that causal attention looks at
    spared: int = 0  # of the tokens, those not run: what many examples begin with is run once

    def __add__(self, other: "Size") -> "Size":
        return Size(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))


def size_of(examples: Examples, indices: Int64[np.ndarray, "b"], prefix: int = 0, times: int = 1) -> Size:
    """How much work some examples are, if their first `prefix` tokens are run `times` times in all."""
    lengths = np.asarray(examples.lengths[indices], np.int64)
    loss_tokens = loss_token_counts(examples, indices)
    pairs = int((lengths * (lengths + 1) // 2).sum())
    spared = prefix * max(len(indices) - times, 0)
    return Size(int(lengths.sum()), int(loss_tokens.sum()), pairs - spared * (prefix + 1) // 2, spared)


def loss_token_counts(examples: Examples, indices: Int64[np.ndarray, "b"]) -> Int64[np.ndarray, "b"]:
    """How many tokens of some examples have a loss."""
    counts = num_loss_tokens(examples.lengths[indices], examples.prompt_lengths[indices])
    return counts - examples.gaps.counts(indices)


def example_places(examples: Examples, index: int) -> Int64[np.ndarray, "m"]:
    """The places of an example's tokens that have a loss."""
    length, prompt = int(examples.lengths[index]), int(examples.prompt_lengths[index])
    return loss_places(length, prompt, examples.gaps.spans(index))


def shared_prefix(examples: Examples, indices: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "p"]:
    """The tokens that rows need not hold: none that a loss is computed at, and not all of any example."""
    if not len(indices):
        return np.zeros(0, np.int32)
    shortest = min(int(examples.lengths[indices].min()), int(examples.prompt_lengths[indices].min()))
    most = min(shortest - 1, len(examples.common_prefix))
    return examples.common_prefix[: most if most >= _SHORTEST_PREFIX else 0]


def row_length(lengths: Int[np.ndarray, "n"], most: int) -> int:
    """Tokens of a packed row: as long as the longest example, rounded up to a multiple of 32."""
    longest = int(lengths.max(initial=1))
    return min(most, -(-longest // _ROW_MULTIPLE) * _ROW_MULTIPLE)


class Batches:
    """The batches of a run: `self.read(step)` is a pure function of the arguments given here.

    Args:
      examples: the whole pool.
      subset: rows of the pool to train on.
      weights: of each row of the subset, for an example-mean loss.
      batch_size: examples of a step; every step has exactly as many.
      max_length: most tokens of an example.
      microbatches: accumulation steps.
      groups: row groups of the mesh.
      local_groups: the row groups this process provides.
      pack: False gives each example a row of its own.
      name_examples: rows say which pool row each token is of, for dropout.
      share_prefix: leave out of the rows what all examples of the pool begin with; it goes beside them.

    Attributes:
      shapes: those that batches have, smallest first.
      planned_shapes: those of the steps that were looked at ahead.
      mean_rows: rows of a microbatch and group, on average over these.
    """

    def __init__(
        self,
        examples: Examples,
        subset: Int64[np.ndarray, "s"],
        weights: Float32[np.ndarray, "s"],
        *,
        batch_size: int,
        num_steps: int,
        seed: int,
        max_length: int,
        microbatches: int = 1,
        groups: int = 1,
        local_groups: Sequence[int] = (0,),
        pack: bool = True,
        name_examples: bool = False,
        share_prefix: bool = False,
    ):
        self.examples, self.subset, self.weights = examples, subset, weights
        self.batch_size, self.num_steps, self.seed = batch_size, num_steps, seed
        # Of the whole pool, so that runs on its subsets share compiled programs.
        whole = np.asarray(examples.lengths)
        self._prefix = shared_prefix(examples, np.arange(len(whole) if share_prefix else 0))
        self.row_length = row_length(whole - len(self._prefix), max_length)
        self._microbatches, self._groups, self._local = microbatches, groups, local_groups
        self._pack, self._name_examples = pack, name_examples
        planned = range(min(num_steps, _PLANNED_STEPS))
        unplanned = num_steps > _PLANNED_STEPS
        needed = [self._lay_out(indices).shape for indices in self._indices_of(planned)]
        # A program takes as long to compile as some hundred steps of a small model take to run.
        self.planned_shapes = choose_shapes(needed, most=2 if unplanned else min(3, 1 + num_steps // 500))
        self.shapes = list(self.planned_shapes)
        self.mean_rows = float(np.mean([self._shape_for(shape).rows for shape in needed] or [0]))
        if unplanned:
            per_bin = -(-batch_size // (microbatches * groups))
            # No batch outgrows one row an example; it is compiled only if ever met.
            self.shapes.append(Shape(per_bin, per_bin * self.row_length, batch_size))

    def indices(self, step: int) -> Int64[np.ndarray, "b"]:
        """Places in the subset of one step's examples."""
        start = step * self.batch_size
        positions = np.arange(start, start + self.batch_size)
        return visit_order(positions, len(self.subset), self.seed)

    def _indices_of(self, steps: range) -> Iterator[Int64[np.ndarray, "b"]]:
        """`indices` of consecutive steps, many at once: most of what one step's take is the call."""
        for first in steps[::256]:
            last = min(first + 256, steps.stop)
            positions = np.arange(first * self.batch_size, last * self.batch_size)
            yield from visit_order(positions, len(self.subset), self.seed).reshape(-1, self.batch_size)

    def read(self, step: int) -> Batch:
        """One step's batch; only this process's rows are read from disk."""
        indices = self.indices(step)
        pool_rows = self.subset[indices]
        layout = self._lay_out(indices)
        shape = self._shape_for(layout.shape)
        mine = [n for m in layout.groups for g in self._local for row in m[g] for n in row]
        ids = self.examples.read([int(pool_rows[n]) for n in mine])
        places = (example_places(self.examples, int(pool_rows[n])) for n in mine)
        texts = {n: (t, p) for n, t, p in zip(mine, ids, places, strict=True)}
        named = pool_rows if self._name_examples else None
        skip = len(self._prefix)
        rows, _ = fill(layout, shape, self.row_length, texts, self.weights[indices], self._local, named, skip)
        rows = self._with_prefix(rows)
        slots = slot_indices(layout, shape.examples)
        return Batch(step, pool_rows, rows, self._size(pool_rows), slots)

    def _shape_for(self, needed: Shape) -> Shape:
        return next(s for s in self.shapes if s.covers(needed))

    def empty(self, shape: Shape) -> PackedRows:
        """What `read` gives for batches of one of `shapes`, of all row groups and without examples."""
        nothing, named = np.zeros(0, np.int64), np.zeros(0, np.int64) if self._name_examples else None
        layout = Layout([[[] for _ in range(self._groups)] for _ in range(self._microbatches)], shape)
        groups = range(self._groups)
        rows, _ = fill(layout, shape, self.row_length, {}, nothing, groups, named, len(self._prefix))
        return self._with_prefix(rows)

    def _with_prefix(self, rows: PackedRows) -> PackedRows:
        if not len(self._prefix):
            return rows
        return rows._replace(prefix=np.tile(self._prefix, (*rows.tokens.shape[:2], 1)))

    def size(self, num_steps: int) -> Size:
        """How much work the first steps of the run are."""
        steps = (self.subset[self.indices(s)] for s in range(num_steps))
        return sum((self._size(rows) for rows in steps), Size(0, 0, 0))

    def _size(self, pool_rows: Int64[np.ndarray, "b"]) -> Size:
        return size_of(self.examples, pool_rows, len(self._prefix), self._microbatches)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches from `step` on, read ahead in threads.

        The order needs no iterator state: a restored run starts here at the restored step.
        """
        import grain

        if step >= self.num_steps:
            return iter(())
        steps = grain.MapDataset.range(step, self.num_steps)
        reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return iter(steps.map(lambda s: self.read(int(s))).to_iter_dataset(reading))

    def _lay_out(self, indices: Int64[np.ndarray, "b"]) -> Layout:
        pool_rows = self.subset[indices]
        return lay_out(
            np.asarray(self.examples.lengths[pool_rows]) - len(self._prefix),
            loss_token_counts(self.examples, pool_rows),
            self.row_length,
            microbatches=self._microbatches,
            groups=self._groups,
            pack=self._pack,
        )
