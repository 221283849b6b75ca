"""The pinned slice: the examples whose losses are tracked, packed once in a fixed order."""

import math
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int32, Int64

from s2l_jax.data.batching import Examples, loss_token_counts, row_length
from s2l_jax.data.order import visit_order
from s2l_jax.data.packing import Layout, PackedRows, Shape, best_fit, deal, fill, roughly
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import local_groups, put_rows

_BYTES_A_TOKEN = 3 * 4  # token, position, segment
_SCANNED_AT_MOST = 64  # microbatches of one streamed block

Block = tuple[PackedRows, Int32[Array, "a g e"]]


class PinnedSlice:
    """Packed examples on the devices, in blocks that one compiled program takes.

    The whole slice is one block, kept on the devices, as long as it fits in `pinned_bytes` per
    device; a larger one is cut into blocks that are packed and sent, each while the one before it
    is worked on.

    Args:
      examples: tokenised examples.
      numbers: which of them are tracked; the losses come out in this order.
      mesh: the device mesh.
      max_length: most tokens of an example.
      batch_tokens: tokens that a device works on at a time.
      pinned_bytes: device memory that the slice may keep.
    """

    def __init__(
        self,
        examples: Examples,
        numbers: Int64[np.ndarray, "n"],
        mesh: Mesh,
        *,
        max_length: int,
        batch_tokens: int,
        pinned_bytes: int,
    ):
        self._examples, self._numbers, self._mesh = examples, numbers, mesh
        lengths = np.asarray(examples.lengths[numbers])
        self._loss_tokens = loss_token_counts(examples, numbers)
        self._row_length = row_length(lengths, max_length)
        groups = row_groups(mesh)
        rows = best_fit(lengths, self._row_length)
        # Rows come longest first; shuffled, every microbatch has about as many response tokens.
        rows = [rows[i] for i in visit_order(np.arange(len(rows)), len(rows), seed=0)]
        per_group = max(1, batch_tokens // self._row_length)
        per_group = min(per_group, math.ceil(len(rows) / groups))
        microbatches = math.ceil(len(rows) / (groups * per_group))
        if per_group * self._row_length * microbatches * _BYTES_A_TOKEN > pinned_bytes:
            microbatches = min(microbatches, _SCANNED_AT_MOST)
        size = microbatches * groups * per_group
        self._layouts: list[Layout] = []
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            some += [[] for _ in range(size - len(some))]
            self._layouts.append(deal(some, self._loss_tokens, microbatches=microbatches, groups=groups))
        self._shape = Shape(
            per_group,
            roughly(max(layout.shape.loss_tokens for layout in self._layouts), least=8),
            roughly(max(layout.shape.examples for layout in self._layouts), least=8),
        )
        self._pinned = self._build(self._layouts[0]) if len(self._layouts) == 1 else None

    def __len__(self) -> int:
        return len(self._numbers)

    def blocks(self) -> Iterator[Block]:
        """The packed rows, and the place in the slice of each example slot (-1 for none)."""
        if self._pinned is not None:
            yield self._pinned
            return
        ahead = self._build(self._layouts[0])
        for layout in self._layouts[1:]:
            now, ahead = ahead, self._build(layout)
            yield now
        yield ahead

    def _build(self, layout: Layout) -> Block:
        local = local_groups(self._mesh)
        mine = [n for m in layout.groups for g in local for row in m[g] for n in row]
        tokens = self._examples.read([int(self._numbers[n]) for n in mine])
        prompts = self._examples.prompt_lengths
        texts = {n: (ids, int(prompts[self._numbers[n]])) for n, ids in zip(mine, tokens, strict=True)}
        weights = np.ones(len(self._numbers), np.float32)
        packed, slots = fill(layout, self._shape, self._row_length, texts, weights, local)
        block: Block = put_rows(self._mesh, (packed, slots), axis=1)
        return jax.block_until_ready(block) if len(self._layouts) == 1 else block
