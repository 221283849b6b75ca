"""What training keeps in memory: never all logits at once, and less with each rematerialisation policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.data.packing import PackedRows
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.decoder import REMAT_POLICIES
from s2l_jax.models.parameters import abstract_params, init_params
from s2l_jax.training.loss import token_mean, training_loss

pytestmark = pytest.mark.long

GROUPS, ROWS, LENGTH, EXAMPLES = 2, 2, 128, 4


def make_config(**settings):
    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    rest = {"family": "llama", "intermediate_size": 24, "max_positions": 128, "rotary_dim": 8}
    return DecoderConfig(**{**small, **rest, "vocab_size": 50_257, **settings})


def abstract_rows(loss_tokens):
    def ints(*shape):
        return jax.ShapeDtypeStruct((GROUPS, *shape), jnp.int32)

    texts, flat = ints(ROWS, LENGTH), ints(loss_tokens)
    mask = jax.ShapeDtypeStruct(flat.shape, jnp.bool_)
    weights = jax.ShapeDtypeStruct((GROUPS, EXAMPLES), jnp.float32)
    return PackedRows(texts, texts, texts, flat, flat, flat, mask, weights)


def total_loss(config, dtype, remat="none"):
    def loss(params, rows):
        return training_loss(config, params, rows, token_mean(rows), dtype=dtype, remat=remat)[0]

    return loss


def largest_with_axis(size, function, *args):
    """Elements of the largest array that has an axis of this size, at any depth."""
    largest, todo = 0, [jax.make_jaxpr(function)(*args).jaxpr]
    while todo:
        for equation in todo.pop().eqns:
            shapes = [getattr(variable.aval, "shape", ()) for variable in equation.outvars]
            largest = max([largest, *(int(np.prod(shape)) for shape in shapes if size in shape)])
            inner = jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
            todo += [getattr(value, "jaxpr", value) for value in inner if is_jaxpr(value)]
    return largest


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


HEADS = {
    "untied": {},
    "tied": {"tied_embeddings": True},
    "biased": {"head_bias": True},
}


@pytest.mark.parametrize("head", HEADS)
def test_logits_exist_for_a_part_at_a_time(head):
    config = make_config(**HEADS[head])
    vocabulary, tokens = config.padded_vocab_size, 16_384
    args = abstract_params(config), abstract_rows(tokens)
    loss = total_loss(config, jnp.bfloat16)
    chunk = GROUPS * 2**25  # elements: 640 tokens' logits a group
    largest = largest_with_axis(vocabulary, jax.grad(loss), *args)
    assert 0.9 * chunk < largest <= chunk < GROUPS * tokens * vocabulary / 20
    # Without a gradient: all tokens, but 1,024 of the vocabulary, and nothing but parameters has all of it.
    assert largest_with_axis(1024, loss, *args) == GROUPS * tokens * 1024
    assert largest_with_axis(vocabulary, loss, *args) == config.hidden_size * vocabulary
    # The compiled program needs no more than a few chunks either.
    temporary = jax.jit(jax.grad(loss)).lower(*args).compile().memory_analysis().temp_size_in_bytes
    assert 4 * chunk / 2 < temporary < 6 * 4 * chunk < 4 * GROUPS * tokens * vocabulary / 4


def test_rematerialisation_changes_memory_and_nothing_else():
    config = make_config(vocab_size=300, hidden_size=64, num_layers=6, intermediate_size=192)
    rng = np.random.default_rng(0)
    params = init_params(config, jax.random.key(0))
    segments = np.sort(rng.integers(0, 3, (GROUPS, ROWS, LENGTH)))[..., ::-1].astype(np.int32)
    tokens = rng.integers(0, 300, segments.shape, dtype=np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (GROUPS, ROWS, 1))
    index = np.sort(rng.integers(0, ROWS * LENGTH, (GROUPS, 64))).astype(np.int32)
    targets = rng.integers(0, 300, index.shape, dtype=np.int32)
    slots = np.sort(rng.integers(0, EXAMPLES, index.shape)).astype(np.int32)
    weights = np.ones((GROUPS, EXAMPLES), np.float32)
    rows = PackedRows(tokens, positions, segments, index, targets, slots, np.ones_like(index, bool), weights)
    temporary, outcomes = {}, {}
    for remat in REMAT_POLICIES:
        function = jax.jit(jax.value_and_grad(total_loss(config, jnp.float32, remat)))
        program = function.lower(params, rows).compile()
        temporary[remat] = program.memory_analysis().temp_size_in_bytes
        outcomes[remat] = program(params, rows)
    assert list(temporary) == ["none", "dots", "full"]
    assert temporary["dots"] < 0.7 * temporary["none"]
    assert temporary["full"] < 0.9 * temporary["dots"]
    for remat in ("dots", "full"):
        for want, got in zip(*map(jax.tree.leaves, (outcomes["none"], outcomes[remat])), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
