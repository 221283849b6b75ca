"""The gradient that the forward pass takes is that of the plain cross-entropy, in few matrix products."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.models.layers import Head
from s2l_jax.parallel.sharding import parameter_sharding, row_sharding, vocabulary_shards
from s2l_jax.training import cross_entropy
from s2l_jax.training.cross_entropy import token_losses, weighted_loss

GROUPS, TOKENS, WIDTH, VOCAB, PADDED = 2, 150, 8, 50, 64


def make_inputs(dtype=jnp.float32, *, bias=True):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(GROUPS, TOKENS, WIDTH)), dtype)
    kernel = jnp.asarray(rng.normal(size=(WIDTH, PADDED)), dtype)
    head = Head(kernel, jnp.asarray(rng.normal(size=PADDED), dtype) if bias else None, VOCAB)
    weights = rng.uniform(0.0, 2.0, (GROUPS, TOKENS)).astype(np.float32)
    weights[:, -20:] = 0.0
    return head, hidden, rng.integers(0, VOCAB, (GROUPS, TOKENS)), weights


def plain(head, hidden, targets, weights):
    logits = jnp.dot(hidden, head.kernel, preferred_element_type=jnp.float32)[..., :VOCAB]
    if head.bias is not None:
        logits += head.bias[:VOCAB].astype(jnp.float32)
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -(weights * picked).sum(), -picked


@pytest.fixture(params=[2**25, 1], ids=["whole", "chunks"])
def _chunks(request, monkeypatch):
    monkeypatch.setattr(cross_entropy, "_LOGITS_AT_ONCE", request.param)
    monkeypatch.setattr(cross_entropy, "_tile_width", lambda tokens, vocabulary: min(request.param, 24))


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
def test_losses_and_gradients_are_those_of_the_plain_one(dtype, tolerance, bias):
    head, hidden, targets, weights = make_inputs(dtype, bias=bias)

    def scaled(function):  # what comes after must scale the gradient
        def run(head, hidden):
            total, losses = function(head, hidden, targets, weights)
            return 3.0 * total, losses

        return jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))(head, hidden)

    want, got = scaled(plain), scaled(lambda *args: weighted_loss(True, *args))
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
    np.testing.assert_allclose(token_losses(head, hidden, targets), want[0][1], rtol=tolerance)


@pytest.mark.parametrize("tile", [1, 5, 24, 64, 1024])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_losses_depend_on_no_tiles_and_no_shards(tile, shards, monkeypatch):
    head, hidden, targets, weights = make_inputs()
    targets[0, :4] = 0, VOCAB - 1, 15, 16  # at the ends of tiles and shards
    monkeypatch.setattr(cross_entropy, "_tile_width", lambda tokens, vocabulary: min(tile, vocabulary))
    losses = jax.jit(token_losses, static_argnames="vocab_shards")(head, hidden, targets, vocab_shards=shards)
    np.testing.assert_allclose(losses, plain(head, hidden, targets, weights)[1], rtol=2e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_no_device_has_more_than_its_part_of_the_vocabulary(cube_mesh, tied):
    vocabulary = 5120
    hidden = jax.ShapeDtypeStruct((4, 24, 32), jnp.float32, sharding=row_sharding(cube_mesh))
    targets = jax.ShapeDtypeStruct((4, 24), jnp.int32, sharding=row_sharding(cube_mesh))
    axes, shape = (("vocab", "embed"), (vocabulary, 32)) if tied else (("embed", "vocab"), (32, vocabulary))
    matrix = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=parameter_sharding(cube_mesh, axes, shape))
    shards = vocabulary_shards(cube_mesh, vocabulary)

    def losses(matrix, hidden, targets):
        head = Head(matrix.T if tied else matrix, None, vocabulary - 20)
        return token_losses(head, hidden, targets, vocab_shards=shards)

    program = jax.jit(losses).lower(matrix, hidden, targets).compile().as_text()
    assert shards == 2
    assert re.search(rf"\[[\d,]*\b{vocabulary // 2}\b", program)
    assert not re.search(rf"\[[\d,]*\b{vocabulary}\b", program)


@pytest.mark.parametrize("vocabulary", [64, 1536, 32_000, 50_304, 151_936])
@pytest.mark.parametrize("tokens", [8, 704, 4608, 60_000])
def test_tiles_are_even_and_fit(tokens, vocabulary, monkeypatch):
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        width = cross_entropy._tile_width(tokens, vocabulary)
        tiles = -(-vocabulary // width)
        assert tiles * width < vocabulary + tiles * 128  # columns that two tiles have are computed twice
        room = 1024 * tokens if backend == "cpu" else 2**25
        assert tokens * width < max(room, 128 * tokens) + 128 * tokens


def test_logits_far_from_each_other():
    head, hidden, targets, weights = make_inputs()
    far = head.kernel.at[0].set(jnp.linspace(-3e4, 3e4, PADDED))  # exponentials over- and underflow
    losses = token_losses(Head(far, head.bias, VOCAB), hidden, targets)
    np.testing.assert_allclose(
        losses, plain(Head(far, head.bias, VOCAB), hidden, targets, weights)[1], rtol=1e-5
    )
    assert np.isfinite(losses).all()
    assert losses.max() > 1e4


@pytest.mark.usefixtures("_chunks")
def test_a_frozen_head_has_no_gradient_and_leaves_the_others_as_it_is():
    head, *rest = make_inputs()

    def gradients(head_is_trained):
        run = jax.grad(
            lambda head, hidden: weighted_loss(head_is_trained, head, hidden, *rest[1:])[0], (0, 1)
        )
        return jax.jit(run)(head, rest[0])

    (of_head, of_hidden), (of_frozen, below_frozen) = gradients(True), gradients(False)
    np.testing.assert_allclose(below_frozen, of_hidden, rtol=1e-6, atol=1e-7)
    assert float(jnp.abs(of_head.kernel).max()) > 0 == float(jnp.abs(of_frozen.kernel).max())


@pytest.mark.parametrize(("head_is_trained", "products"), [(True, 3), (False, 2)])
def test_logits_are_computed_once(head_is_trained, products):
    head, hidden, targets, weights = make_inputs()

    def loss(head, hidden):
        return weighted_loss(head_is_trained, head, hidden, targets, weights)[0]

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(head, hidden).as_text()
    assert program.count("stablehlo.dot_general") == products
