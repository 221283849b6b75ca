"""Packing: no row overflows, every example is there once, losses point at the right tokens."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.packing import Shape, best_fit, choose_shapes, deal, fill, lay_out, roughly, slot_indices
from s2l_jax.data.responses import loss_places

LENGTHS = st.lists(st.integers(1, 24), min_size=1, max_size=40)


def first_fit_decreasing(lengths, capacity):
    """The slow textbook algorithm: the number of rows it needs."""
    free = []
    for length in sorted(lengths, reverse=True):
        for row, space in enumerate(free):
            if length <= space:
                free[row] -= length
                break
        else:
            free.append(capacity - length)
    return len(free)


def best_fit_slow(lengths, capacity):
    """Best-fit decreasing as defined: the fullest row with room takes the example."""
    free = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in free if space >= length]
        if fitting:
            free[free.index(min(fitting))] -= length
        else:
            free.append(capacity - length)
    return sorted(free)


class TestBestFit:
    @given(LENGTHS, st.integers(24, 70))
    @settings(max_examples=150, deadline=None)
    def test_is_best_fit_decreasing(self, lengths, capacity):
        rows = best_fit(np.array(lengths), [capacity])
        assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
        free = sorted(capacity - sum(lengths[i] for i in row) for row in rows)
        assert free[0] >= 0
        assert free == best_fit_slow(lengths, capacity)

    @given(LENGTHS, st.integers(24, 70))
    @settings(max_examples=150, deadline=None)
    def test_needs_few_rows(self, lengths, capacity):
        rows = len(best_fit(np.array(lengths), [capacity]))
        least = -(-sum(lengths) // capacity)
        assert least <= rows <= 11 / 9 * least + 1 + len([n for n in lengths if 2 * n > capacity])
        assert rows <= first_fit_decreasing(lengths, capacity) + 1

    def test_a_hundred_thousand_examples(self):
        lengths = np.random.default_rng(0).integers(5, 512, 100_000)
        rows = best_fit(lengths, [512])
        assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
        assert max(lengths[row].sum() for row in rows) <= 512
        assert len(rows) <= 1.005 * lengths.sum() / 512 + 1

    def test_is_deterministic_and_breaks_ties_by_number(self):
        assert best_fit(np.array([4, 4, 4, 2]), [8]) == [[0, 1], [2, 3]]

    @given(st.lists(st.integers(1, 64), max_size=60))
    @settings(max_examples=100, deadline=None)
    def test_rows_of_several_lengths(self, lengths):
        """The least row for its first example; a new one only where no row has room."""
        capacities = [16, 32, 64]
        rows = best_fit(np.array(lengths, int), capacities)
        assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
        held = [next(c for c in capacities if c >= lengths[row[0]]) for row in rows]
        free = [c - sum(lengths[i] for i in row) for c, row in zip(held, rows, strict=True)]
        assert min(free, default=0) >= 0
        for number, row in enumerate(rows):
            earlier = [
                held[r] - sum(lengths[i] for i in rows[r] if (-lengths[i], i) < (-lengths[row[0]], row[0]))
                for r in range(number)
            ]
            assert all(space < lengths[row[0]] for space in earlier)

    def test_too_long(self):
        with pytest.raises(ValueError, match="9 tokens does not fit a row of 8"):
            best_fit(np.array([3, 9]), [8])

    def test_nothing(self):
        assert best_fit(np.zeros(0, int), [8]) == []


@st.composite
def batches(draw):
    """Examples (token ids, prompt length) with odd cases among them, and how they are split."""
    size = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    examples = []
    for _ in range(size):
        length = draw(st.one_of(st.just(1), st.integers(1, 16)))
        prompt = draw(st.one_of(st.just(0), st.just(length), st.integers(0, length)))
        examples.append((rng.integers(1, 1000, length).astype(np.int32), prompt))
    split = draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2), (3, 4)]))
    return examples, split, draw(st.booleans())


ROW = 16


def laid_out(examples, split, pack):
    lengths = np.array([len(ids) for ids, _ in examples])
    loss_tokens = np.array([max(len(ids) - max(p, 1), 0) for ids, p in examples])
    return loss_tokens, lay_out(lengths, loss_tokens, ROW, microbatches=split[0], groups=split[1], pack=pack)


def filled_with(examples):
    return {n: (ids, loss_places(len(ids), prompt)) for n, (ids, prompt) in enumerate(examples)}


class TestLayOut:
    @given(batches())
    @settings(max_examples=100, deadline=None)
    def test_every_example_once_and_the_shape_is_the_least(self, batch):
        examples, split, pack = batch
        loss_tokens, layout = laid_out(examples, split, pack)
        assert (len(layout.groups), {len(m) for m in layout.groups}) == (split[0], {split[1]})
        groups = [group for microbatch in layout.groups for group in microbatch]
        everything = [n for group in groups for row in group for n in row]
        assert sorted(everything) == list(range(len(examples)))
        of = [[n for row in group for n in row] for group in groups]
        rows = [len(group) for group in groups]
        assert max(rows) == layout.shape.rows == -(-sum(rows) // len(groups))
        assert layout.shape.loss_tokens == max(int(loss_tokens[g].sum()) for g in of)
        assert layout.shape.examples == max(map(len, of))
        if not pack:
            assert all(len(row) == 1 for group in groups for row in group)

    def test_what_all_begin_with_can_be_left_out(self):
        rng = np.random.default_rng(0)
        examples = [(rng.integers(1, 1000, n).astype(np.int32), p) for n, p in [(12, 7), (9, 9), (10, 5)]]
        ids = filled_with(examples)
        lengths = np.array([len(tokens) - 4 for tokens, _ in examples])
        layout = lay_out(lengths, np.array([5, 0, 5]), ROW, microbatches=1, groups=1)
        rows, slots = fill(layout, layout.shape, ROW, ids, np.ones(3, np.float32), range(1), skip=4)
        flat = [x.reshape(-1) for x in (rows.tokens, rows.positions)]
        for slot, number in enumerate(slots[0, 0]):
            tokens, prompt = examples[number]
            mine = rows.loss_mask[0, 0] & (rows.loss_slot[0, 0] == slot)
            assert rows.loss_targets[0, 0][mine].tolist() == tokens[prompt:].tolist()
            before = rows.loss_index[0, 0][mine]
            assert flat[0][before].tolist() == tokens[prompt - 1 : -1].tolist()[: len(before)]
            assert flat[1][before].tolist() == list(range(prompt - 1, len(tokens) - 1))
        assert sorted(flat[1][rows.segments.reshape(-1) > 0]) == sorted(
            itertools.chain(*(range(4, len(tokens)) for tokens, _ in examples))
        )

    def test_loss_tokens_are_spread_evenly(self):
        rng = np.random.default_rng(0)
        rows = [[i] for i in range(64)]
        loss_tokens = rng.integers(1, 400, 64)
        layout = deal(rows, loss_tokens, microbatches=2, groups=4)
        loads = [sum(loss_tokens[r[0]] for r in g) for m in layout.groups for g in m]
        assert {len(g) for m in layout.groups for g in m} == {8}
        assert max(loads) - min(loads) < 40

    def test_rows_without_examples_are_dealt_too(self):
        layout = deal([[0], [], [1], []], np.array([3, 5]), microbatches=2, groups=2)
        assert layout.shape == Shape(1, 5, 1)


class TestFill:
    @given(batches(), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_tokens_and_losses(self, batch, roomy):
        examples, split, pack = batch
        _, layout = laid_out(examples, split, pack)
        least = layout.shape
        shape = Shape(least.rows + 2, least.loss_tokens + 5, least.examples + 3) if roomy else least
        weights = np.random.default_rng(1).uniform(1, 2, len(examples)).astype(np.float32)
        packed, numbers = fill(layout, shape, ROW, filled_with(examples), weights, range(split[1]))
        assert np.array_equal(slot_indices(layout, shape.examples), numbers)
        assert packed.tokens.shape == (*split, shape.rows, ROW)
        assert packed.loss_index.shape == (*split, shape.loss_tokens)
        assert packed.weights.shape == numbers.shape == (*split, shape.examples)
        seen = []
        for a, g in np.ndindex(split):
            rows = jax.tree.map(lambda leaf, place=(a, g): leaf[place], packed)
            seen += self.check_group(rows, numbers[a, g], examples, weights)
        assert sorted(seen) == list(range(len(examples)))

    def check_group(self, rows, numbers, examples, weights):
        """Read one group's arrays back; returns the examples found."""
        texts = []
        for tokens, positions, segments in zip(rows.tokens, rows.positions, rows.segments, strict=True):
            used = segments > 0
            # Segments are 1, 2, ... side by side from the left; padding is zero in all three.
            assert not used[used.argmin() :].any() or used.all()
            assert (np.diff(segments[used]) >= 0).all()
            assert set(segments[used]) == set(range(1, segments.max() + 1))
            assert not tokens[~used].any()
            assert not positions[~used].any()
            for segment in range(1, segments.max() + 1):
                inside = segments == segment
                assert np.array_equal(positions[inside], np.arange(inside.sum()))
                texts.append(tuple(tokens[inside]))
        held = [n for n in numbers.tolist() if n >= 0]
        assert numbers[: len(held)].tolist() == held  # slots are filled from the first
        assert sorted(texts) == sorted(tuple(examples[n][0]) for n in held)
        flat = rows.tokens.reshape(-1), rows.segments.reshape(-1), rows.positions.reshape(-1)
        for slot, number in enumerate(numbers.tolist()):
            mine = rows.loss_mask & (rows.loss_slot == slot)
            if number < 0:
                assert not mine.any()
                assert rows.weights[slot] == 0
                continue
            ids, prompt = examples[number]
            first = max(prompt, 1)
            assert rows.loss_targets[mine].tolist() == ids[first:].tolist()
            assert rows.weights[slot] == (weights[number] if len(ids) > first else 0)
            where = rows.loss_index[mine]
            assert np.array_equal(flat[0][where], ids[first - 1 : -1])
            assert np.array_equal(flat[2][where], np.arange(first - 1, len(ids) - 1))
            if len(where):  # the token predicted is the next one of the same example
                assert np.array_equal(flat[0][where + 1], ids[first:])
                assert np.array_equal(flat[1][where], flat[1][where + 1])
        assert (rows.loss_slot[~rows.loss_mask] == len(numbers)).all()
        assert rows.loss_mask.sum() == sum(max(len(examples[n][0]) - max(examples[n][1], 1), 0) for n in held)
        return held

    def test_groups_of_this_process_alone(self):
        examples = [(np.full(10, 1 + i, np.int32), 4) for i in range(8)]
        _, layout = laid_out(examples, (2, 4), True)
        weights = np.ones(8, np.float32)
        texts = filled_with(examples)
        whole, numbers = fill(layout, layout.shape, ROW, texts, weights, range(4))
        mine = [n for m in layout.groups for g in (1, 2) for row in m[g] for n in row]
        some, few = fill(layout, layout.shape, ROW, {n: texts[n] for n in mine}, weights, range(1, 3))
        same = jax.tree.map(lambda a, b: np.array_equal(a[:, 1:3], b), (whole, numbers), (some, few))
        assert jax.tree.all(same)


SHAPES = st.lists(
    st.builds(Shape, st.integers(1, 8), st.integers(0, 500), st.integers(1, 64)),
    min_size=1,
    max_size=14,
)


class TestChooseShapes:
    @given(SHAPES, st.integers(1, 3))
    @settings(max_examples=150, deadline=None)
    def test_padding_is_the_least_possible(self, shapes, most):
        """Up to 8 rows are not rounded up, so the choice itself can be compared."""
        chosen = choose_shapes(shapes, most)
        counts = sorted({s.rows for s in shapes})
        assert 1 <= len(chosen) <= most
        assert {c.rows for c in chosen} <= set(counts)

        def cost(rows):
            return sum(min(r for r in rows if r >= s.rows) for s in shapes)

        largest = counts[-1]
        options = [
            (*some, largest)
            for k in range(min(most, len(counts)))
            for some in itertools.combinations(counts[:-1], k)
        ]
        assert cost([c.rows for c in chosen]) == min(map(cost, options))

    @given(
        st.lists(
            st.builds(Shape, st.integers(1, 300), st.integers(0, 9000), st.integers(1, 300)),
            min_size=1,
            max_size=40,
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_every_batch_fits_the_first_shape_with_rows_enough(self, shapes):
        chosen = choose_shapes(shapes)
        assert len(chosen) <= 3
        assert chosen == sorted(chosen)
        for shape in shapes:
            assert next(c for c in chosen if c.rows >= shape.rows).covers(shape)
        assert chosen[-1].rows <= 1.25 * max(s.rows for s in shapes)

    def test_a_shape_holds_what_its_rounded_rows_let_in(self):
        shapes = [Shape(rows, 0, 9 if rows == 268 else 1) for rows in (1, 225, 257, 268, 289)]
        assert next(c for c in choose_shapes(shapes) if c.rows >= 268).examples == 16

    def test_shapes_that_round_alike_are_one(self):
        assert choose_shapes([Shape(241, 0, 1), Shape(242, 0, 9)]) == [Shape(256, 8, 16)]

    def test_rounding_up_lets_other_subsets_share_programs(self):
        a = choose_shapes([Shape(33, 4010, 126), Shape(34, 4100, 128)], most=1)
        b = choose_shapes([Shape(34, 4200, 128), Shape(35, 3999, 127)], most=1)
        assert a == b


class TestCovers:
    def test_in_all_three(self):
        shape = Shape(2, 10, 3)
        assert shape.covers(shape)
        for larger in (Shape(3, 10, 3), Shape(2, 11, 3), Shape(2, 10, 4)):
            assert larger.covers(shape)
            assert not shape.covers(larger)


@given(st.integers(0, 10**7), st.sampled_from([1, 8, 128]))
@settings(max_examples=200, deadline=None)
def test_roughly_rounds_up_by_an_eighth_at_most_and_to_few_values(n, least):
    rounded = roughly(n, least)
    assert rounded >= max(n, 1)
    assert rounded % least == 0
    assert rounded <= max(least * -(-n // least), 1.125 * n) + (n == 0) * least
    assert roughly(rounded, least) == rounded
    # Between a power of two and its double lie at most eight values.
    power = 1 << 10
    assert len({roughly(m) for m in range(power + 1, 2 * power + 1)}) == 8
