"""Training that runs what all examples begin with once equals training on whole examples."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2l_jax.data.batching import Batches
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.models.lora import Lora
from s2l_jax.models.parameters import flatten_params, joined, model_params
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.placement import load_model, random_adapters
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training import run as stages_run
from s2l_jax.training.loss import example_mean, training_loss
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import init_state, make_train_step
from tests.support.paths import GOLDEN

GPT_NEOX = GOLDEN / "gpt_neox"
BATCH, LENGTH = 16, 48
BEGINNING = np.arange(20, 33, dtype=np.int32)
SETTINGS = OptimizerSettings(learning_rate=1e-2, warmup_fraction=0.0, clip_norm=0.0)

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]


def make_examples(shortest_prompt=0):
    rng = np.random.default_rng(0)
    examples = []
    for number in range(BATCH + 5):
        prompt, response = int(rng.integers(shortest_prompt, 8)), int(rng.integers(1, 24))
        prompt = shortest_prompt if number == 3 else prompt
        own = rng.integers(0, 64, prompt + response).astype(np.int32)
        own[0] = number  # no two go on alike
        tokens = np.concatenate([BEGINNING, own])
        examples.append(TokenizedExample(tokens, len(BEGINNING) + prompt, False, False))
    return examples


EXAMPLES = make_examples()
WEIGHTS = np.random.default_rng(1).uniform(0.5, 3.0, len(EXAMPLES)).astype(np.float32)


def batches_of(examples=EXAMPLES, *, share_prefix=True, **options):
    everything = np.arange(len(examples))
    settings = {"batch_size": BATCH, "num_steps": 2, "seed": 4, "max_length": LENGTH} | options
    settings["local_groups"] = range(settings.get("groups", 1))
    return Batches(
        TokenizedList(examples), everything, WEIGHTS[everything], share_prefix=share_prefix, **settings
    )


@pytest.mark.parametrize(("shortest_prompt", "shared"), [(0, len(BEGINNING) - 1), (1, len(BEGINNING))])
@pytest.mark.parametrize("pack", [True, False])
def test_rows_hold_the_rest_of_each_example(shortest_prompt, shared, pack):
    """The token that predicts the first response token is always in the row."""
    examples = make_examples(shortest_prompt)
    batches = batches_of(examples, microbatches=2, groups=2, pack=pack)
    batch = batches.read(0)
    rows = batch.rows
    assert rows.prefix.shape == (2, 2, shared)
    assert (rows.prefix == BEGINNING[:shared]).all()
    held = []
    for a, g in np.ndindex(2, 2):
        tokens, positions, segments = (x[a, g] for x in (rows.tokens, rows.positions, rows.segments))
        for row in range(len(tokens)):
            for segment in range(1, segments[row].max() + 1):
                mine = segments[row] == segment
                assert positions[row][mine].tolist() == list(range(shared, shared + mine.sum()))
                held.append((*BEGINNING[:shared].tolist(), *tokens[row][mine].tolist()))
        index, targets = (x[a, g][rows.loss_mask[a, g]] for x in (rows.loss_index, rows.loss_targets))
        flat, number = tokens.reshape(-1), segments.reshape(-1)
        for place, target in zip(index.tolist(), targets.tolist(), strict=True):
            last = place + 1 == flat.size or number[place + 1] != number[place]
            assert number[place] > 0
            assert last or flat[place + 1] == target
    assert sorted(held) == sorted(tuple(examples[n].tokens.tolist()) for n in batch.examples)
    whole = batches_of(examples, microbatches=2, groups=2, pack=pack, share_prefix=False).read(0)
    assert whole.rows.prefix is None
    # Both microbatches run the beginning, which all others are spared.
    spared = shared * (BATCH - 2)
    assert batch.size == dataclasses.replace(
        whole.size, pairs=whole.size.pairs - spared * (shared + 1) // 2, spared=spared
    )
    assert batches.size(1) == batch.size
    assert batch.size.tokens - spared == (rows.segments > 0).sum() + 2 * shared
    assert rows.tokens.size < whole.rows.tokens.size


def gradients_of(mesh, rows, params, frozen=None, config=None, **options):
    def loss(params, rows):
        weights = example_mean(rows)
        whole = joined(frozen, params)
        return training_loss(config, whole, rows, weights, dtype=jnp.float32, **options)

    placed = jax.tree.map(lambda x: x[0], put_rows(mesh, rows, axis=1))
    (value, losses), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, placed)
    return float(value), np.asarray(losses), {k: np.asarray(v) for k, v in flatten_params(grads).items()}


def assert_same(ours, theirs, tolerance=2e-5):
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(g).max() for g in theirs.values())
    for path, want in theirs.items():
        assert np.abs(want).max() > 0 or path.endswith("key/bias"), path
        scale = max(np.abs(want).max(), 1e-3 * largest)
        np.testing.assert_allclose(ours[path], want, rtol=0, atol=tolerance * scale, err_msg=path)


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("lora", [False, True])
def test_losses_and_gradients_equal_those_of_padded_whole_examples(lora, remat, one_device_mesh):
    model = load_model(str(GPT_NEOX), one_device_mesh)
    config, frozen, params = model.config, None, model_params(model)
    if lora:
        config = dataclasses.replace(config, lora=Lora(2, 4.0, ("query", "key", "value", "up")))
        adapters = random_adapters(config, one_device_mesh, jax.random.key(0))
        frozen, params = (
            params,
            jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), adapters),
        )
    packed, padded = batches_of().read(0), batches_of(share_prefix=False, pack=False).read(0)
    ours = gradients_of(one_device_mesh, packed.rows, params, frozen, config, remat=remat)
    theirs = gradients_of(one_device_mesh, padded.rows, params, frozen, config)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=2e-6)
    losses = [result[1][batch.slots[0] >= 0] for result, batch in ((ours, packed), (theirs, padded))]
    orders = [np.argsort(batch.slots[0][batch.slots[0] >= 0]) for batch in (packed, padded)]
    np.testing.assert_allclose(losses[0][orders[0]], losses[1][orders[1]], rtol=2e-5)
    assert_same(ours[2], theirs[2])


@pytest.mark.parametrize("loss", ["token", "example"])
def test_a_step_on_a_cube_of_devices_equals_one_on_whole_examples(loss, one_device_mesh, cube_mesh):
    def first_moments(mesh, **options):
        model = load_model(str(GPT_NEOX), mesh)
        batches = batches_of(groups=row_groups(mesh), **options)
        state = init_state(model.config, SETTINGS, 2, mesh, model_params(model))
        step = make_train_step(model.config, SETTINGS, 2, mesh, loss=loss)
        state, metrics = step(state, put_rows(mesh, batches.read(0).rows, axis=1))
        moments = optax.tree_utils.tree_get(state.opt_state, "mu")
        return float(metrics.loss), {k: np.asarray(v) for k, v in flatten_params(moments).items()}

    value, moments = first_moments(cube_mesh, microbatches=2)
    whole, wanted = first_moments(one_device_mesh, share_prefix=False)
    np.testing.assert_allclose(value, whole, rtol=5e-6)
    assert_same(moments, wanted, tolerance=5e-5)


class TestWhenItIsDone:
    @pytest.fixture
    def shares(self, one_device_mesh, monkeypatch):
        """Whether a run with some model settings would share."""

        def ask(**changes):
            made = []
            monkeypatch.setattr(stages_run, "Batches", lambda *_, **options: made.append(options))
            train = types.SimpleNamespace(batch_size=8, accumulation=1, pack=True, dtype="float32")
            tokenize = types.SimpleNamespace(max_length=LENGTH)
            config = types.SimpleNamespace(seed=0, attention="auto", tokenize=tokenize)
            run = types.SimpleNamespace(config=config, mesh=one_device_mesh)
            model = dataclasses.replace(load_model(str(GPT_NEOX), one_device_mesh).config, **changes)
            stages_run.make_batches(run, None, np.arange(3), np.ones(3), model, train, 5)
            return made[0]["share_prefix"]

        return ask

    def test_with_plain_attention(self, shares):
        assert shares()
        assert shares(lora=Lora(2, 4.0, ("query",)))

    def test_not_where_dropout_differs_by_example(self, shares):
        assert not shares(lora=Lora(2, 4.0, ("query",), dropout=0.1))

    def test_not_below_a_sliding_window(self, shares):
        assert not shares(windows=(0, LENGTH - 1))

    def test_not_where_a_kernel_would_need_a_gradient_of_its_sums(self, shares, monkeypatch):
        monkeypatch.setattr(stages_run, "attention_on", lambda *_: lambda *args, **options: None)
        assert not shares()
