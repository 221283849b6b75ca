"""Gradients of single examples against one example at a time, and what projecting them keeps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax import load_model
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.features.compute.example_gradients import AdamMoments, ExampleGradients
from s2l_jax.features.compute.warm_up import epoch_ends
from s2l_jax.models.lora import Lora
from s2l_jax.models.parameters import bind, flatten_params, joined, model_params
from s2l_jax.parallel.placement import random_adapters

pytestmark = pytest.mark.long

LENGTHS = [(5, 9), (20, 33), (0, 9), (9, 9), (3, 33)]  # prompt, whole
GAPS = [(), ((22, 25), (28, 30)), (), (), ()]  # between responses
SHORT = np.array([0, 2, 3])  # rows of one length are one program


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    return TokenizedList(
        TokenizedExample(rng.integers(3, 400, whole).astype(np.int32), prompt, False, False, gaps)
        for (prompt, whole), gaps in zip(LENGTHS, GAPS, strict=True)
    )


def prepared(checkpoint, mesh):
    model = load_model(str(checkpoint), mesh)
    config = dataclasses.replace(model.config, lora=Lora(2, 4.0, ("query", "value", "up")))
    adapters = random_adapters(config, mesh, jax.random.key(1))
    # Adapters that add nothing have no gradient in `a`.
    adapters = jax.tree.map(
        lambda p: p + 0.02 * jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), adapters
    )
    return config, model_params(model), adapters


def slow_gradients(config, frozen, adapters, examples):
    """Of each example in a row of its own length."""

    @jax.jit
    @jax.grad
    def gradient(adapters, tokens, response):
        model = bind(config, joined(frozen, adapters))
        places = jnp.arange(len(tokens))[None]
        logits = model.logits(model(tokens[None], places, jnp.ones_like(places)))[0]
        losses = -jax.nn.log_softmax(logits[:-1])[jnp.arange(len(tokens) - 1), tokens[1:]]
        return (losses * response).sum() / jnp.maximum(response.sum(), 1)

    tokens = examples.read(range(len(LENGTHS)))
    found = []
    for ids, (prompt, whole), gaps in zip(tokens, LENGTHS, GAPS, strict=True):
        learnt = [at >= prompt and not any(s <= at < e for s, e in gaps) for at in range(1, whole)]
        found.append(gradient(adapters, ids, jnp.array(learnt)))
    return found


def vector(tree):
    return np.concatenate([np.asarray(leaf).ravel() for _, leaf in sorted(flatten_params(tree).items())])


@pytest.fixture(scope="module")
def on_one(tiny_checkpoint, one_device_mesh):
    return prepared(tiny_checkpoint, one_device_mesh)


@pytest.fixture(scope="module")
def slow(on_one, examples):
    return slow_gradients(*on_one, examples)


def test_equal_to_one_example_at_a_time(tiny_checkpoint, one_device_mesh, cube_mesh, on_one, examples, slow):
    expected = np.stack([vector(each) for each in slow])
    assert np.abs(expected).max(1).tolist()[3] == 0  # no response is left of it
    for mesh in (one_device_mesh, cube_mesh):
        config, frozen, adapters = on_one if mesh is one_device_mesh else prepared(tiny_checkpoint, mesh)
        sweep = ExampleGradients(config, mesh, dims=0, batch_tokens=64)
        ours = sweep.of(frozen, adapters, examples, np.arange(len(LENGTHS)))
        np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())
        some = sweep.of(frozen, adapters, examples, np.array([4, 1]))
        np.testing.assert_allclose(some, expected[[4, 1]], atol=1e-5 * np.abs(expected).max())


def test_adams_next_update(one_device_mesh, on_one, examples, slow):
    config, frozen, adapters = on_one
    mean = jax.tree.map(lambda p: 0.01 * jnp.sin(p * 100), adapters)
    square = jax.tree.map(lambda p: (0.01 * p) ** 2, adapters)
    sweep = ExampleGradients(config, one_device_mesh, dims=0)
    moments = AdamMoments(mean, square, count=7, beta1=0.8, beta2=0.9, epsilon=1e-6)
    ours = sweep.of(frozen, adapters, examples, SHORT, moments)
    old_mean, old_square = vector(mean), vector(square)
    for row, number in enumerate(SHORT):
        grad = vector(slow[number])
        first = (0.8 * old_mean + 0.2 * grad) / (1 - 0.8**8)
        second = (0.9 * old_square + 0.1 * grad**2) / (1 - 0.9**8)
        expected = first / (np.sqrt(second) + 1e-6) if grad.any() else 0 * grad
        np.testing.assert_allclose(ours[row], expected, rtol=2e-2, atol=1e-3)


def test_a_projection_keeps_angles_and_is_the_same_for_all(one_device_mesh, on_one, examples, slow):
    config, frozen, adapters = on_one
    whole = np.stack([vector(each) for each in slow])
    numbers = np.arange(len(LENGTHS))
    sweep = ExampleGradients(config, one_device_mesh, dims=1024, seed=3)
    ours = sweep.of(frozen, adapters, examples, numbers)
    assert ours.shape == (len(LENGTHS), 1024)
    kept = [n for n in numbers if whole[n].any()]

    def angles(rows):
        rows = rows[kept] / np.linalg.norm(rows[kept], axis=1, keepdims=True)
        return rows @ rows.T

    np.testing.assert_allclose(angles(ours), angles(whole), atol=4 / np.sqrt(1024))
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(whole, axis=1), rtol=0.15)
    # Linear: the projection of a sum is the sum of projections, so one matrix served every batch.
    alone = np.concatenate(
        [sweep.of(frozen, adapters, examples, part) for part in (numbers[:1], numbers[1:])]
    )
    np.testing.assert_allclose(alone, ours, atol=1e-5 * np.abs(ours).max())
    other = ExampleGradients(config, one_device_mesh, dims=1024, seed=4)
    assert np.abs(other.of(frozen, adapters, examples, numbers) - ours).max() > 0.1 * np.abs(ours).max()


@pytest.mark.parametrize(
    ("rows", "ends"), [(96, [3, 6, 9, 12]), (40, [2, 3, 4, 5]), (17, [1, 2, 3, 4]), (1, [1, 2, 3, 4])]
)
def test_every_epoch_of_the_warm_up_ends_with_a_step_of_its_own(rows, ends):
    assert epoch_ends(rows, 32, 4) == ends
