"""The decoder's logits equal PyTorch's, whatever the rows look like and however they are computed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.models import hf
from s2l_jax.models.cache import KeyValueCache
from s2l_jax.models.layers import wide_product
from s2l_jax.models.lora import PROJECTIONS, Lora
from s2l_jax.models.parameters import (
    LOGICAL_AXES,
    bind,
    flatten_params,
    init_params,
    model_params,
    nest_params,
    parameter_shapes,
    unstacked,
)
from s2l_jax.parallel.placement import load_model, model_shardings
from tests.support.paths import GOLDEN

GPT_NEOX = GOLDEN / "gpt_neox"
SEQUENTIAL = GOLDEN / "gpt_neox_sequential"
EXAMPLES = [np.load(GPT_NEOX / "golden.npz")[f"tokens_{i}"] for i in range(3)]
ROW = 40  # tokens of a row; holds all three examples


@pytest.fixture(scope="module", params=[GPT_NEOX, SEQUENTIAL], ids=lambda path: path.name)
def directory(request):
    return request.param


@pytest.fixture(scope="module")
def model(directory, one_device_mesh):
    return load_model(str(directory), one_device_mesh)


@pytest.fixture(scope="module")
def golden(directory):
    """Examples and PyTorch's logits for them."""
    arrays = np.load(directory / "golden.npz")
    return [(arrays[f"tokens_{i}"], arrays[f"logits_{i}"]) for i in range(3)]


@jax.jit
def _forward(model, tokens, positions, segments):
    return model.logits(model(tokens, positions, segments))


def pack(examples, row=ROW):
    """One row of examples, one after the other: tokens, positions, segments."""
    arrays = np.zeros((3, 1, row), np.int32)
    at = 0
    for number, tokens in enumerate(examples, start=1):
        span = slice(at, at + len(tokens))
        arrays[0, 0, span], arrays[1, 0, span] = tokens, np.arange(len(tokens))
        arrays[2, 0, span] = number
        at += len(tokens)
    return arrays


def logits_of(model, examples):
    """Logits of each example when all of them share one row."""
    out = np.asarray(_forward(model, *pack(examples)))[0]
    out = out[:, : model.config.vocab_size]
    return np.split(out, np.cumsum([len(e) for e in examples]))[:-1]


def assert_near(ours, theirs):
    """Equal within 2e-4 of the largest logit."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("number", range(3))
def test_padded_row_equals_pytorch(number, golden, model):
    tokens, theirs = golden[number]
    (ours,) = logits_of(model, [tokens])
    assert_near(ours, theirs)


def test_row_without_padding_equals_pytorch(golden, model):
    example, theirs = golden[2]
    assert_near(_forward(model, *pack([example], row=len(example)))[0][:, : theirs.shape[1]], theirs)


def test_packed_row_equals_pytorch(golden, model):
    for ours, (_, theirs) in zip(logits_of(model, [tokens for tokens, _ in golden]), golden, strict=True):
        assert_near(ours, theirs)


def test_packed_examples_do_not_see_each_other(model):
    first, second, third = logits_of(model, EXAMPLES)
    changed = [EXAMPLES[0], (EXAMPLES[1] + 1) % 64, EXAMPLES[2]]
    also_first, also_second, also_third = logits_of(model, changed)
    np.testing.assert_array_equal(also_first, first)
    np.testing.assert_array_equal(also_third, third)
    assert np.abs(also_second - second).max() > 0.1


def test_a_token_does_not_see_what_follows(model):
    (before,) = logits_of(model, [EXAMPLES[2]])
    (after,) = logits_of(model, [np.append(EXAMPLES[2][:-1], 7 + EXAMPLES[2][-1] % 8)])
    np.testing.assert_array_equal(after[:-1], before[:-1])
    assert np.abs(after[-1] - before[-1]).max() > 0.1


def test_extending_a_cache_equals_the_whole_row(model):
    tokens, positions, segments = (jnp.asarray(x) for x in pack([EXAMPLES[2]], row=21))
    whole = _forward(model, tokens, positions, segments)
    model = bind(model.config, unstacked(model.config, model_params(model)))
    hidden, kept = _prefill(model, tokens[:, :7], positions[:, :7], segments[:, :7])
    cache = KeyValueCache.empty(model.config, 1, 30, jnp.float32)  # with room to spare
    cache = dataclasses.replace(
        cache,
        keys=tuple(held.at[:, :, :7].set(new) for held, (new, _) in zip(cache.keys, kept, strict=True)),
        values=tuple(held.at[:, :, :7].set(new) for held, (_, new) in zip(cache.values, kept, strict=True)),
        positions=cache.positions.at[:, :7].set(positions[:, :7]),
        end=jnp.int32(7),
    )
    pieces = [model.logits(hidden)]
    for place in range(7, 21):
        logits, cache = _extend(model, tokens[:, place], positions[:, place], cache)
        pieces.append(logits[:, None])
    assert int(cache.end) == 21
    assert_near(jnp.concatenate(pieces, axis=1), np.asarray(whole))


@jax.jit
def _prefill(model, tokens, positions, segments):
    return model.prefill(tokens, positions, segments)


@jax.jit
def _extend(model, tokens, positions, cache):
    hidden, cache = model.extend(tokens, positions, cache)
    return model.logits(hidden), cache


def test_bfloat16_parameters_compute_in_bfloat16(model):
    row = pack(EXAMPLES)
    half = bind(model.config, jax.tree.map(lambda p: p.astype(jnp.bfloat16), model_params(model)))
    assert jax.eval_shape(half, *row).dtype == jnp.bfloat16
    logits, exact = _forward(half, *row), _forward(model, *row)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - exact)[row[2] > 0].max() < 0.15


GOLDENS = sorted(path.parent for path in GOLDEN.glob("*/config.json"))


@pytest.mark.filterwarnings("ignore:.*dropout")
def test_every_parameter_has_logical_axes(cube_mesh):
    configs = {path.name: hf.load_config(path) for path in GOLDENS}
    adapters = Lora(rank=2, alpha=2.0, projections=PROJECTIONS)
    configs["adapted"] = dataclasses.replace(configs["llama"], lora=adapters)
    everything = set()
    for name, config in configs.items():
        shapes = parameter_shapes(config)
        assert shapes.keys() <= LOGICAL_AXES.keys()
        for path, shape in shapes.items():
            assert len(LOGICAL_AXES[path]) == len(shape), (name, path)
        assert model_shardings(cube_mesh, config).keys() == shapes.keys()
        everything |= shapes.keys()
    assert everything == LOGICAL_AXES.keys(), "no axes of parameters that are gone"


def test_flat_and_nested_parameters_are_the_same(model):
    params = model_params(model)
    flat = flatten_params(params)
    assert flat.keys() == parameter_shapes(model.config).keys()
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, nest_params(flat), params))


def test_fresh_parameters_have_the_configured_spread_and_depend_on_the_key():
    config = dataclasses.replace(hf.load_config(GPT_NEOX), initializer_range=0.05)
    init = jax.jit(init_params, static_argnums=0)
    flat = flatten_params(init(config, jax.random.key(0)))
    assert {k: v.shape for k, v in flat.items()} == parameter_shapes(config)
    for path, leaf in flat.items():
        kind = path.rsplit("/", 1)[1]
        if kind in ("kernel", "embedding"):
            assert abs(float(leaf.std()) - 0.05) < 0.01, path
            assert abs(float(leaf.mean())) < 0.01, path
        else:
            np.testing.assert_array_equal(leaf, 1.0 if kind == "scale" else 0.0, err_msg=path)
    layers = flat["layers/mlp/up/kernel"]
    assert np.abs(layers[0] - layers[1]).max() > 0.01, "every layer draws its own numbers"
    other = flatten_params(init(config, jax.random.key(1)))
    assert np.abs(other["embed/embedding"] - flat["embed/embedding"]).max() > 0.01


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_head_multiplies_gradients_in_the_dtype_of_the_activations(dtype):
    rng = np.random.default_rng(0)
    x, kernel, weights = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 5, 8), (8, 30), (2, 5, 30))
    )

    def loss(product, x, kernel):
        return (product(x, kernel) * weights).sum()

    rounded = x.astype(dtype), kernel.astype(dtype)
    gradients = jax.grad(functools.partial(loss, wide_product), argnums=(0, 1))
    program = jax.make_jaxpr(gradients)(*rounded)
    kinds = [{v.aval.dtype for v in e.invars} for e in program.eqns if e.primitive.name == "dot_general"]
    assert kinds
    assert all(kind == {jnp.dtype(dtype)} for kind in kinds)
    got = gradients(*rounded)
    want = jax.grad(functools.partial(loss, jnp.matmul), argnums=(0, 1))(x, kernel)
    for ours, reference in zip(got, want, strict=True):
        assert ours.dtype == dtype
        scale = np.abs(reference).max()
        tolerance = 1e-6 if dtype == jnp.float32 else 0.02
        np.testing.assert_allclose(ours.astype(jnp.float32), reference, atol=tolerance * scale)
