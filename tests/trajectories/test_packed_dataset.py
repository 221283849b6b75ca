"""The packed dataset: every example once, in blocks of one shape, pinned or streamed."""

import jax
import numpy as np
import pytest

from s2l_jax.data.batching import loss_token_counts
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.trajectories.packed_dataset import PackedDataset, sweep_size


def make_examples(size, longest=40):
    rng = np.random.default_rng(0)
    examples = []
    for number in range(size):
        length = int(rng.integers(1, longest + 1))
        tokens = rng.integers(1, 1000, length).astype(np.int32)
        tokens[0] = number
        examples.append(TokenizedExample(tokens, int(rng.integers(0, length + 1)), False, False))
    return TokenizedList(examples)


def pin(examples, numbers, mesh, *, batch_tokens=256, pinned_bytes=2**20):
    return PackedDataset(
        examples,
        numbers,
        mesh,
        max_length=40,
        batch_tokens=batch_tokens,
        pinned_bytes=pinned_bytes,
    )


def check(tracked, examples, numbers):
    """Every example is there once, with its losses; returns the blocks' shapes."""
    places, shapes = [], set()
    for rows, slots in tracked.blocks():
        shapes.add(tuple(leaf.shape for leaf in jax.tree.leaves((rows, slots))))
        rows, slots = jax.tree.map(np.asarray, (rows, slots))
        for a, g in np.ndindex(slots.shape[:2]):
            mine = slots[a, g][slots[a, g] >= 0]
            places += mine.tolist()
            starts = (rows.segments[a, g] > 0) & (rows.positions[a, g] == 0)
            assert sorted(rows.tokens[a, g][starts]) == sorted(numbers[mine])
            slot = rows.loss_slot[a, g][rows.loss_mask[a, g]]
            counts = np.bincount(slot, minlength=slots.shape[2])[: len(mine)]
            assert np.array_equal(counts, loss_token_counts(examples, numbers[mine]))
    assert sorted(places) == list(range(len(numbers)))
    assert len(tracked) == len(numbers)
    return shapes


@pytest.mark.parametrize("mesh", ["one_device_mesh", "cube_mesh"])
@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("batch_tokens", [1, 256, 10**6])
def test_every_example_once(request, mesh, size, batch_tokens):
    mesh = request.getfixturevalue(mesh)
    examples = make_examples(120)
    numbers = np.random.default_rng(size).permutation(120)[:size]
    tracked = pin(examples, numbers, mesh, batch_tokens=batch_tokens)
    assert len(check(tracked, examples, numbers)) == 1
    assert len(list(tracked.blocks())) == 1


def test_a_slice_above_the_limit_is_streamed_in_blocks_of_one_shape(cube_mesh):
    examples = make_examples(3000)
    numbers = np.arange(3000)
    tracked = pin(examples, numbers, cube_mesh, batch_tokens=40, pinned_bytes=1000)
    assert len(list(tracked.blocks())) > 3
    assert len(check(tracked, examples, numbers)) == 1
    assert len(check(tracked, examples, numbers)) == 1  # and again for the next checkpoint


def test_a_pinned_slice_stays_on_the_devices(cube_mesh):
    tracked = pin(make_examples(50), np.arange(50), cube_mesh)
    (first,), (second,) = tracked.blocks(), tracked.blocks()
    assert first is second
    spread = first[0].tokens.sharding
    assert spread.mesh.shape == cube_mesh.shape
    # Rows are spread over data x fsdp, the whole row is on each device of the tensor axis.
    assert spread.shard_shape(first[0].tokens.shape)[1] == 1
    assert first[0].tokens.shape[1] == 4
    assert spread.num_devices == 8


def test_microbatches_have_alike_numbers_of_response_tokens(one_device_mesh):
    """Best fit gives the long examples first; in that order the loss padding would be large."""
    examples = make_examples(2000)
    tracked = pin(examples, np.arange(2000), one_device_mesh, batch_tokens=1024)
    ((rows, _),) = tracked.blocks()
    mask = np.asarray(rows.loss_mask)
    assert mask.shape[0] > 10
    assert mask[:-1].mean() > 0.7


def test_what_all_begin_with_is_work_once(one_device_mesh):
    """The size is that of the rows as they are packed, and of the beginning on its own."""
    beginning = np.arange(1, 13, dtype=np.int32)
    examples = TokenizedList(
        TokenizedExample(np.concatenate([beginning, e.tokens]), e.prompt_length + 12, False, False)
        for e in make_examples(30, longest=20)._examples
    )
    numbers = np.arange(3, 30)
    tracked = pin(examples, numbers, one_device_mesh)
    (rows, _) = next(iter(tracked.blocks()))
    shared = len(tracked.prefix)
    assert shared >= 8
    alone = sweep_size(examples, numbers, share_prefix=False)
    once = sweep_size(examples, numbers, share_prefix=True)
    assert once.tokens - once.spared == int((rows.segments > 0).sum()) + shared
    seen = int((rows.positions + 1)[rows.segments > 0].sum())  # each token sees all before it, and itself
    assert once.pairs == seen + shared * (shared + 1) // 2
    assert alone.pairs == once.pairs + (len(numbers) - 1) * shared * (shared + 1) // 2
    assert (alone.tokens, alone.loss_tokens, alone.spared) == (once.tokens, once.loss_tokens, 0)
