"""The decoder's logits equal PyTorch's, whatever the rows look like and however they are computed."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.models import hf
from s2l_jax.models.decoder import (
    LOGICAL_AXES,
    Context,
    KeyValueCache,
    bind,
    flatten_params,
    init_params,
    model_params,
    nest_params,
    parameter_shapes,
)
from s2l_jax.parallel.placement import load_model, model_shardings

GOLDEN = pathlib.Path(__file__).parent / "golden" / "gpt_neox"
ARRAYS = dict(np.load(GOLDEN / "logits.npz"))
EXAMPLES = [ARRAYS[f"tokens_{i}"] for i in range(3)]
ROW = 32  # tokens of a row; holds all three examples


def older_fields(config):
    """The same config as hub repositories of older models write it."""
    rope = config.pop("rope_parameters")
    return config | {
        "rotary_pct": rope["partial_rotary_factor"],
        "rotary_emb_base": int(rope["rope_theta"]),
        "torch_dtype": "float32",
    }


@pytest.fixture(scope="module", params=["parallel", "sequential"])
def residual(request):
    return request.param


@pytest.fixture(scope="module")
def model(residual, tmp_path_factory, one_device_mesh):
    directory = tmp_path_factory.mktemp(residual)
    shutil.copy(GOLDEN / hf.WEIGHTS, directory)
    config = json.loads((GOLDEN / "config.json").read_text())
    config["use_parallel_residual"] = residual == "parallel"
    (directory / "config.json").write_text(json.dumps(config))
    loaded = load_model(str(directory), one_device_mesh)
    (directory / "config.json").write_text(json.dumps(older_fields(config)))
    assert hf.load_config(directory) == loaded.config, "both generations of configs say the same"
    return loaded


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
    return np.split(out, np.cumsum([len(e) for e in examples]))[:-1]


def assert_near(ours, theirs):
    """Equal within 2e-4 of the largest logit."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4 * np.abs(theirs).max())


def test_golden_logits_are_worth_comparing():
    parallel, sequential = (ARRAYS[f"{r}_2"] for r in ("parallel", "sequential"))
    assert parallel.std() > 0.1
    assert np.abs(parallel - sequential).max() > 0.1


@pytest.mark.parametrize("number", range(3))
def test_padded_row_equals_pytorch(number, residual, model):
    (ours,) = logits_of(model, [EXAMPLES[number]])
    assert_near(ours, ARRAYS[f"{residual}_{number}"])


def test_row_without_padding_equals_pytorch(residual, model):
    tokens, positions, segments = pack([EXAMPLES[2]], row=len(EXAMPLES[2]))
    assert_near(_forward(model, tokens, positions, segments)[0], ARRAYS[f"{residual}_2"])


def test_packed_row_equals_pytorch(residual, model):
    for number, ours in enumerate(logits_of(model, EXAMPLES)):
        assert_near(ours, ARRAYS[f"{residual}_{number}"])


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
    tokens, positions, segments = (jnp.asarray(x) for x in pack([EXAMPLES[2]], row=14))
    whole = _forward(model, tokens, positions, segments)
    slots = jnp.broadcast_to(jnp.arange(20), (1, 20))  # a cache with room to spare
    cache = KeyValueCache.empty(model.config, 1, 20, jnp.float32)
    pieces = []
    for span in (slice(0, 7), slice(7, 14)):
        context = Context(positions[:, span], segments[:, span], slots[:, span], jnp.ones_like(slots), slots)
        logits, cache = _extend(model, tokens[:, span], context, cache)
        pieces.append(logits)
        assert int(cache.end) == span.stop
    assert_near(jnp.concatenate(pieces, axis=1), np.asarray(whole))


@jax.jit
def _extend(model, tokens, context, cache):
    hidden, cache = model.extend(tokens, context, cache)
    return model.logits(hidden), cache


def test_bfloat16_parameters_compute_in_bfloat16(model):
    row = pack(EXAMPLES)
    half = bind(model.config, jax.tree.map(lambda p: p.astype(jnp.bfloat16), model_params(model)))
    assert jax.eval_shape(half, *row).dtype == jnp.bfloat16
    logits, exact = _forward(half, *row), _forward(model, *row)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - exact)[row[2] > 0].max() < 0.15


VARIANTS = [{}, {"attention_bias": False}, {"tied_embeddings": True}]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_parameter_has_logical_axes(changes, cube_mesh):
    config = hf.load_config(GOLDEN)
    shapes = parameter_shapes(changed := dataclasses.replace(config, **changes))
    assert shapes.keys() <= LOGICAL_AXES.keys()
    for path, shape in shapes.items():
        assert len(LOGICAL_AXES[path]) == len(shape), path
    assert model_shardings(cube_mesh, changed).keys() == shapes.keys()
    everything = set().union(
        *(parameter_shapes(dataclasses.replace(config, **variant)) for variant in VARIANTS)
    )
    assert everything == LOGICAL_AXES.keys(), "no axes of parameters that are gone"


def test_flat_and_nested_parameters_are_the_same(model):
    params = model_params(model)
    flat = flatten_params(params)
    assert flat.keys() == parameter_shapes(model.config).keys()
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, nest_params(flat), params))


def test_fresh_parameters_have_the_configured_spread_and_depend_on_the_key():
    config = dataclasses.replace(hf.load_config(GOLDEN), initializer_range=0.05)
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
