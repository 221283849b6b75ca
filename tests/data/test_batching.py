"""Training batches: pure functions of the step, each epoch covering the subset once."""

import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data import batching
from s2l_jax.data.batching import Batches, Size, loss_token_counts, row_length, size_of
from s2l_jax.data.responses import NO_GAPS
from s2l_jax.data.tokens import TokenizedExample, TokenizedList

MAX_LENGTH = 40


def make_examples(size, seed=0, longest=MAX_LENGTH):
    """Examples whose first token is their own number; some have no response."""
    rng = np.random.default_rng(seed)
    examples = []
    for number in range(size):
        length = int(rng.integers(1, longest + 1))
        tokens = rng.integers(1, 1000, length).astype(np.int32)
        tokens[0] = number
        prompt = int(rng.integers(0, length + 1))
        examples.append(TokenizedExample(tokens, prompt, False, False))
    return TokenizedList(examples)


def make_batches(examples, subset=None, **options):
    subset = np.arange(len(examples.lengths)) if subset is None else subset
    weights = np.linspace(1, 2, len(subset)).astype(np.float32)
    settings = {"batch_size": 8, "num_steps": 12, "seed": 1, "max_length": MAX_LENGTH} | options
    return Batches(examples, subset, weights, **settings)


def examples_in(rows):
    """First tokens of the segments of packed rows: which examples they hold."""
    starts = (rows.segments > 0) & (rows.positions == 0)
    return rows.tokens[starts].tolist()


def assert_same(a, b):
    assert a.step == b.step
    assert a.size == b.size
    for x, y in zip((a.examples, *a.rows), (b.examples, *b.rows), strict=True):
        assert np.array_equal(x, y)


OPTIONS = st.fixed_dictionaries(
    {
        "microbatches": st.sampled_from([1, 2, 4]),
        "groups": st.sampled_from([1, 2]),
        "pack": st.booleans(),
        "seed": st.integers(0, 5),
        "batch_size": st.sampled_from([8, 16, 24]),
    }
)


class TestBatches:
    @given(st.integers(1, 60), OPTIONS)
    @settings(max_examples=40, deadline=None)
    def test_every_epoch_covers_the_subset_once(self, size, options):
        """Also where the subset is smaller than a batch: what is seen differs by one at most."""
        pool = make_examples(70)
        subset = np.sort(np.random.default_rng(size).choice(70, size, replace=False))
        options["local_groups"] = range(options["groups"])
        batches = make_batches(pool, subset, num_steps=5, **options)
        seen = []
        for step in range(5):
            batch = batches.read(step)
            assert batch.step == step
            assert len(batch.examples) == options["batch_size"]
            assert sorted(examples_in(batch.rows)) == sorted(batch.examples.tolist())
            seen += batch.examples.tolist()
        for start in range(0, len(seen) - size + 1, size):
            assert sorted(seen[start : start + size]) == subset.tolist()
        counts = collections.Counter(seen)
        assert max(counts.values()) - min(counts[n] for n in subset.tolist()) <= 1

    def test_a_step_does_not_depend_on_what_was_read_before(self):
        pool = make_examples(50)
        first, second = make_batches(pool), make_batches(pool)
        forwards = [first.read(step) for step in range(12)]
        for step in (11, 3, 7, 3):
            assert_same(second.read(step), forwards[step])
        other = make_batches(pool, seed=2)
        assert other.read(3).examples.tolist() != forwards[3].examples.tolist()

    @pytest.mark.parametrize("start", [0, 5, 11, 12, 99])
    def test_from_step_is_reading_on(self, start):
        batches = make_batches(make_examples(50), microbatches=2)
        steps = list(batches.from_step(start))
        assert [batch.step for batch in steps] == list(range(start, 12))
        for batch in steps:
            assert_same(batch, batches.read(batch.step))

    def test_an_error_while_reading_ahead_comes_out(self):
        pool = make_examples(50)

        def fails(numbers):
            raise OSError("disk gone")

        pool.read = fails
        with pytest.raises(OSError, match="disk gone"):
            list(make_batches(pool).from_step(0))

    @pytest.mark.parametrize("held", [((0, 1), (2, 3)), ((0, 3), (1, 2)), ((0, 2), (0, 1, 3))], ids=str)
    def test_processes_provide_the_parts_of_one_batch(self, held):
        """Of whatever groups their devices hold, shared ones as well."""
        pool = make_examples(80)
        options = {"batch_size": 16, "groups": 4, "microbatches": 2, "name_examples": True}
        whole = make_batches(pool, local_groups=range(4), **options)
        parts = [make_batches(pool, local_groups=groups, **options) for groups in held]
        for step in range(12):
            expected = whole.read(step)
            got = [part.read(step) for part in parts]
            for groups, batch in zip(held, got, strict=True):
                rows = zip(jax.tree.leaves(expected.rows), jax.tree.leaves(batch.rows), strict=True)
                assert all(np.array_equal(mine, leaf[:, list(groups)]) for leaf, mine in rows)
            for batch in got:
                assert np.array_equal(batch.examples, expected.examples)
                assert batch.size == expected.size  # of the whole batch, whoever provides it

    def test_a_process_reads_its_own_examples_alone(self):
        pool = make_examples(80)
        read = []
        plain = pool.read
        pool.read = lambda numbers: read.extend(numbers) or plain(numbers)
        for groups in (range(2), range(2, 4)):
            make_batches(pool, batch_size=16, groups=4, local_groups=groups).read(0)
        whole = make_batches(pool, batch_size=16, groups=4, local_groups=range(4)).read(0)
        assert sorted(read[:-16]) == sorted(whole.examples.tolist())

    def test_weights_go_with_their_examples(self):
        pool = make_examples(30)
        subset = np.arange(0, 30, 2)
        batches = make_batches(pool, subset, num_steps=4)
        weight_of = dict(zip(subset.tolist(), batches.weights.tolist(), strict=True))
        with_loss = loss_token_counts(pool, np.arange(30)) > 0
        for step in range(4):
            batch = batches.read(step)
            expected = [weight_of[n] for n in batch.examples.tolist() if with_loss[n]]
            got = batch.rows.weights[batch.rows.weights > 0]
            assert sorted(got.tolist()) == sorted(expected)

    def test_packing_takes_fewer_rows_and_the_same_examples(self):
        pool = make_examples(64, longest=12)
        packed, padded = (make_batches(pool, batch_size=32, pack=p) for p in (True, False))
        assert packed.read(2).examples.tolist() == padded.read(2).examples.tolist()
        assert padded.read(2).rows.tokens.shape[2] == 32
        assert packed.read(2).rows.tokens.shape[2] < 16


class TestShapes:
    @pytest.mark.parametrize("num_steps", [20, 600, 1100])
    def test_few_programs_a_run(self, num_steps):
        batches = make_batches(make_examples(200), batch_size=16, num_steps=num_steps, name_examples=True)
        shapes = {
            tuple(leaf.shape for leaf in jax.tree.leaves(batches.read(step).rows))
            for step in range(0, num_steps, max(1, num_steps // 60))
        }
        assert len(shapes) <= len(batches.shapes) <= min(3, 1 + num_steps // 500)

    def test_a_subset_of_short_examples_has_the_rows_of_the_pool(self):
        pool = make_examples(200)
        short = np.flatnonzero(pool.lengths < 10)
        assert make_batches(pool, short).row_length == make_batches(pool).row_length == MAX_LENGTH

    def test_steps_beyond_those_laid_out_ahead_always_fit(self, monkeypatch):
        """The longest and most talkative examples all meet in steps that no plan looked at."""
        monkeypatch.setattr(batching, "_PLANNED_STEPS", 10)
        pool = make_examples(300)
        worst = [TokenizedExample(np.arange(MAX_LENGTH, dtype=np.int32), 0, False, False)] * 300
        planned = make_batches(pool, batch_size=16, num_steps=11, microbatches=2)
        later = planned.indices(10)
        mixed = [worst[n] if n in later else pool._examples[n] for n in range(300)]
        batches = make_batches(TokenizedList(mixed), batch_size=16, num_steps=11, microbatches=2)
        assert batches.read(10).rows.tokens.shape[2] == 8  # a row an example
        assert max(batches.read(s).rows.tokens.shape[2] for s in range(10)) < 8

    def test_a_long_run_keeps_its_common_shapes(self, monkeypatch):
        """The fallback, a row an example, must not stand in for a shape that batches do need."""
        monkeypatch.setattr(batching, "_PLANNED_STEPS", 1000)
        pool = make_examples(500, longest=20)
        short, long = (make_batches(pool, batch_size=16, num_steps=n) for n in (1000, 1001))
        assert len(short.shapes) == 3
        assert len(long.shapes) <= 3
        assert long.shapes[-1].rows == 16
        assert max(long.read(s).rows.tokens.shape[2] for s in range(0, 1000, 25)) == (short.shapes[-1].rows)


class TestSizes:
    def test_against_a_slow_loop(self):
        pool = make_examples(40)
        batches = make_batches(pool, num_steps=7)
        total = Size(0, 0, 0)
        for step in range(7):
            batch = batches.read(step)
            tokens = loss_tokens = pairs = 0
            for number in batch.examples:
                length, prompt = int(pool.lengths[number]), int(pool.prompt_lengths[number])
                tokens += length
                pairs += sum(query + 1 for query in range(length))
                loss_tokens += sum(1 for t in range(1, length) if t >= prompt)
            assert batch.size == Size(tokens, loss_tokens, pairs)
            assert (batch.rows.segments > 0).sum() == tokens
            assert batch.rows.loss_mask.sum() == loss_tokens
            total += batch.size
        assert batches.size(batches.num_steps) == total

    def test_of_long_examples_does_not_overflow(self):
        class Long:
            lengths = np.full(3, 2**20, np.int32)
            prompt_lengths = np.zeros(3, np.int32)
            gaps = NO_GAPS

        size = size_of(Long(), np.arange(3))
        assert size == Size(3 * 2**20, 3 * (2**20 - 1), 3 * (2**20 * (2**20 + 1) // 2))

    @pytest.mark.parametrize(
        ("lengths", "most", "expected"),
        [([5], 512, 32), ([32], 512, 32), ([33], 512, 64), ([500], 512, 512), ([90], 96, 96)],
    )
    def test_row_length(self, lengths, most, expected):
        assert row_length(np.array(lengths), most) == expected

    def test_row_length_never_cuts_an_example(self):
        assert row_length(np.array([50]), 50) == 50
