"""The sweep's losses equal those of each example alone, however the slice is cut into blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.data.pool import PoolRow
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.models.attention import shares_prefix
from s2l_jax.models.parameters import model_params
from s2l_jax.parallel.placement import load_model, mesh_of
from s2l_jax.parallel.sharding import row_constraint
from s2l_jax.training import cross_entropy
from s2l_jax.training.loss import example_losses as packed_losses
from s2l_jax.training.loss import token_mean, training_loss
from s2l_jax.trajectories import packed_dataset
from s2l_jax.trajectories.packed_dataset import PackedDataset
from s2l_jax.trajectories.sweep import example_losses, make_sweep, sweep_programs
from tests.support.paths import GOLDEN

GPT_NEOX = GOLDEN / "gpt_neox"
LENGTH, VOCAB = 32, 64

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make_examples():
    rng = np.random.default_rng(0)
    sizes = [(int(rng.integers(1, 8)), int(rng.integers(1, 20))) for _ in range(40)]
    sizes[4], sizes[9], sizes[17] = (0, 12), (5, 0), (LENGTH, 0)  # no prompt; no response
    return [
        TokenizedExample(rng.integers(0, VOCAB, p + r).astype(np.int32), p, False, False) for p, r in sizes
    ]


EXAMPLES = make_examples()
NUMBERS = np.random.default_rng(1).permutation(len(EXAMPLES))[:33]  # a slice, in an order of its own
CUT = {9, 17}


@pytest.fixture(scope="module")
def model(one_device_mesh):
    return load_model(str(GPT_NEOX), one_device_mesh)


@jax.jit
def _logits(model, tokens):
    positions = jnp.arange(tokens.shape[1])[None]
    return model.logits(model(tokens, positions, jnp.ones_like(tokens)))[0]


def loss_alone(model, example):
    """Mean cross-entropy of one example in a row of its own, summed in float64."""
    tokens = np.pad(example.tokens, (0, -len(example.tokens) % 32))  # what follows is not seen
    logits = np.asarray(_logits(model, tokens[None]), np.float64)
    losses = [
        np.log(np.exp(logits[t - 1]).sum()) - logits[t - 1, example.tokens[t]]
        for t in range(max(example.prompt_length, 1), len(example.tokens))
    ]
    return np.mean(losses) if losses else 0.0


@pytest.fixture(scope="module")
def oracle(model):
    return np.array([loss_alone(model, EXAMPLES[number]) for number in NUMBERS])


def make_slice(mesh, batch_tokens, pinned_bytes=2**30):
    return PackedDataset(
        TokenizedList(EXAMPLES),
        NUMBERS,
        mesh,
        max_length=LENGTH,
        batch_tokens=batch_tokens,
        pinned_bytes=pinned_bytes,
    )


def sweep_of(model, mesh, tracked):
    sweep = make_sweep(model.config, tracked, mesh)
    column = sweep(model_params(model))
    assert column.dtype == jnp.float32
    assert column.is_fully_replicated
    first = np.asarray(column)
    np.testing.assert_array_equal(first, sweep(model_params(model)), err_msg="same bytes again")
    return first


def test_the_oracle_has_something_to_tell_apart(oracle):
    assert oracle.std() > 0.1
    zero = [int(number) for number, loss in zip(NUMBERS, oracle, strict=True) if loss == 0]
    assert set(zero) == CUT


def test_one_block_of_one_microbatch(model, one_device_mesh, oracle):
    tracked = make_slice(one_device_mesh, batch_tokens=2**14)
    ((rows, slots),) = tracked.blocks()
    assert rows.tokens.shape[0] == 1
    assert rows.tokens.shape[2] < len(NUMBERS), "examples are packed"
    assert sorted(slots[slots >= 0].tolist()) == list(range(len(NUMBERS)))
    np.testing.assert_allclose(sweep_of(model, one_device_mesh, tracked), oracle, atol=5e-6)


def test_several_microbatches(model, one_device_mesh, oracle):
    tracked = make_slice(one_device_mesh, batch_tokens=2 * LENGTH)
    ((rows, _),) = tracked.blocks()
    assert rows.tokens.shape[0] > 4
    assert rows.tokens.shape[2] == 2
    np.testing.assert_allclose(sweep_of(model, one_device_mesh, tracked), oracle, atol=5e-6)


def test_streamed_blocks(model, one_device_mesh, oracle, monkeypatch):
    monkeypatch.setattr(packed_dataset, "_SCANNED_AT_MOST", 2)
    tracked = make_slice(one_device_mesh, batch_tokens=2 * LENGTH, pinned_bytes=1)
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(block)) for block in tracked.blocks()}
    assert len(list(tracked.blocks())) > 2
    assert len(shapes) == 1, "one compiled program"
    np.testing.assert_allclose(sweep_of(model, one_device_mesh, tracked), oracle, atol=5e-6)


def test_a_cube_of_devices(cube_mesh, oracle):
    model = load_model(str(GPT_NEOX), cube_mesh)
    tracked = make_slice(cube_mesh, batch_tokens=LENGTH)
    ((rows, slots),) = tracked.blocks()
    assert rows.tokens.shape[:3] == (rows.tokens.shape[0], 4, 1)
    assert rows.tokens.sharding.shard_shape(rows.tokens.shape)[1] == 1
    assert sorted(slots[slots >= 0].tolist()) == list(range(len(NUMBERS)))
    np.testing.assert_allclose(sweep_of(model, cube_mesh, tracked), oracle, atol=5e-6)


BEGINNING = np.random.default_rng(2).integers(0, VOCAB, 9).astype(np.int32)


def begins_alike(example):
    """An example with the common beginning before it, cut at the limit."""
    tokens = np.concatenate([BEGINNING, example.tokens])[:LENGTH]
    return TokenizedExample(tokens, min(example.prompt_length + len(BEGINNING), len(tokens)), False, False)


@pytest.mark.parametrize("mesh", ["one_device_mesh", "cube_mesh"])
def test_a_shared_beginning_is_run_once(request, mesh, monkeypatch):
    """Rows of several lengths, too; whatever is left out, the losses are those of each example alone."""
    monkeypatch.setattr(packed_dataset, "_SHORTEST_ROW", 6)
    mesh = request.getfixturevalue(mesh)
    model = load_model(str(GPT_NEOX), mesh)
    examples = [begins_alike(EXAMPLES[number]) for number in NUMBERS]
    tracked = PackedDataset(
        TokenizedList(examples), np.arange(len(examples)), mesh, max_length=LENGTH, pinned_bytes=2**30
    )
    # An example without a prompt: its first loss is at the last token of the beginning.
    assert len(tracked.prefix) == len(BEGINNING) - 1
    lengths = sorted(rows.tokens.shape[-1] for rows, _ in tracked.blocks())
    assert lengths == [12, 24], "none is longer than it must be"
    held = sum(int((rows.segments > 0).sum()) for rows, _ in tracked.blocks())
    assert held == sum(len(e.tokens) - len(tracked.prefix) for e in examples)
    want = np.array([loss_alone(model, example) for example in examples])
    np.testing.assert_allclose(sweep_of(model, mesh, tracked), want, atol=5e-6)


def test_a_beginning_is_not_run_apart_from_a_sliding_window(model):
    config = dataclasses.replace(model.config, windows=(0, LENGTH - 1))
    assert not shares_prefix(config, LENGTH)
    assert shares_prefix(config, LENGTH - 1), "the window is as long as any example"
    assert shares_prefix(model.config, LENGTH)


def largest_logits(vocabulary, function, *args):
    """Elements of the largest float array whose last axis is the vocabulary, at any depth."""
    largest, todo = 0, [jax.make_jaxpr(function)(*args).jaxpr]
    while todo:
        for equation in todo.pop().eqns:
            for variable in equation.outvars:
                shape = getattr(variable.aval, "shape", ())
                if shape[-1:] == (vocabulary,):
                    largest = max(largest, int(np.prod(shape)))
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
                if is_jaxpr(value):
                    todo.append(getattr(value, "jaxpr", value))
    return largest


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("chunked", [False, True])
def test_logits_of_all_tokens_never_exist_at_once(chunked, model, one_device_mesh, monkeypatch):
    ((rows, _),) = make_slice(one_device_mesh, batch_tokens=2**14).blocks()
    rows = jax.tree.map(lambda x: x[0], rows)
    tokens, vocabulary = rows.loss_targets.size, model.config.padded_vocab_size
    tile = 40 if chunked else vocabulary
    if chunked:
        monkeypatch.setattr(cross_entropy, "_LOGITS_AT_ONCE", 1)
        monkeypatch.setattr(cross_entropy, "_tile_width", lambda tokens, vocabulary: tile)
    assert tokens > 128 > tile or not chunked

    how = {"dtype": jnp.float32, "constrain": row_constraint(one_device_mesh)}

    def swept(params):
        return packed_losses(model.config, params, rows, **how)

    def trained(params):
        return training_loss(model.config, params, rows, token_mean(rows), **how)[0]

    params = model_params(model)
    for function in (swept, trained):  # all tokens, a tile of the vocabulary
        assert largest_logits(tile, function, params) == tokens * tile
        if chunked:
            assert largest_logits(vocabulary, function, params) < tokens * vocabulary
    # A gradient: some tokens, the whole vocabulary.
    assert largest_logits(vocabulary, jax.grad(trained), params) == (64 if chunked else tokens) * vocabulary


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint, one_device_mesh):
    from s2l_jax.models import hf

    return load_model(str(tiny_checkpoint), one_device_mesh), hf.load_tokenizer(tiny_checkpoint)


def test_example_losses_come_in_the_order_of_the_rows(tiny, one_device_mesh):
    model, tokenizer = tiny
    rows = [
        {"instruction": "Copy: QXZ", "output": "QXZ"},
        {"instruction": "Add.", "input": "2 + 2", "output": "4"},
        PoolRow(7, "Say nothing " * 60, "", "cut", "", {}, ""),
        {"instruction": "Reverse: ABCDE. Show the steps.", "output": "E D C B A #### EDCBA"},
    ]
    options = {"prompt": "alpaca", "max_length": 192}
    losses = example_losses(model, tokenizer, rows, **options)
    assert losses.shape == (4,)
    assert losses.dtype == np.float32
    assert losses[2] == 0.0
    backwards = example_losses(model, tokenizer, rows[::-1], **options)
    np.testing.assert_allclose(backwards[::-1], losses, atol=5e-6)
    texts = [
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nCopy: QXZ\n\n### Response:",
        "QXZ",
    ]
    prompt, response = (tokenizer(text)["input_ids"] for text in texts)
    ids = np.array([*prompt, *response, tokenizer.eos_token_id], np.int32)
    alone = loss_alone(model, TokenizedExample(ids, len(prompt), False, False))
    np.testing.assert_allclose(losses[0], alone, atol=5e-6)


def test_rows_of_the_same_lengths_take_the_same_program(tiny):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event.endswith("compile_duration") else None
    )

    def losses_of(word):
        rows = [{"instruction": f"Copy: {word}", "output": word}, {"instruction": word, "output": "4"}]
        return example_losses(*tiny, rows, prompt="plain", max_length=64)

    sweep_programs.cache_clear()  # another test may have had a model and rows of the same shapes
    first = losses_of("QXZ")
    assert compiled
    compiled.clear()
    second = losses_of("ABC")
    assert not compiled
    assert not np.array_equal(first, second)


def test_no_rows_have_no_losses(tiny):
    assert example_losses(*tiny, []).shape == (0,)


def test_the_mesh_is_read_off_the_model(tiny, cube_mesh, one_device_mesh):
    assert mesh_of(tiny[0]) == one_device_mesh
    assert mesh_of(load_model(str(GPT_NEOX), cube_mesh)) == cube_mesh
