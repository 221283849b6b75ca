"""Pooled hidden states against one example at a time, and on several devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax import load_model
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.errors import InputError
from s2l_jax.features.compute import pooled_states as module
from s2l_jax.features.compute.pooled_states import hidden_states
from s2l_jax.features.compute.state_settings import StateSettings
from s2l_jax.models.parameters import bind, model_params


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, 70)
    return TokenizedList(
        TokenizedExample(rng.integers(3, 400, n).astype(np.int32), int(n) // 2, False, False) for n in lengths
    )


def model_of(checkpoint, mesh):
    model = load_model(str(checkpoint), mesh)
    return model.config, model_params(model)


def all_states(config, params, examples, mesh, settings, **options):
    parts = list(hidden_states(config, params, examples, mesh, settings, max_length=64, **options))
    assert [start for start, _ in parts] == list(range(0, len(examples.lengths), module.CHUNK))
    return np.concatenate([states for _, states in parts])


def slow_states(config, params, examples, pooling, layer):
    """One example at a time, unpacked, in a row of its own."""
    if layer != -1:
        config = dataclasses.replace(config, num_layers=layer)
        params = params | {"layers": jax.tree.map(lambda p: p[:layer], params["layers"])}
    run = jax.jit(lambda tokens, inside: bind(config, params)(tokens, jnp.arange(64)[None], inside))
    vectors = []
    for ids in examples.read(range(len(examples.lengths))):
        tokens = np.pad(ids, (0, 64 - len(ids)))[None]
        hidden = np.asarray(run(tokens, (np.arange(64) < len(ids)).astype(int)[None]))[0, : len(ids)].astype(
            float
        )
        weights = {
            "mean": np.ones(len(ids)),
            "last": np.arange(len(ids)) == len(ids) - 1,
            "weighted": np.arange(1, len(ids) + 1),
        }[pooling]
        vectors.append((hidden * weights[:, None]).sum(0) / weights.sum())
    return np.array(vectors)


@pytest.mark.parametrize(("pooling", "layer"), [("mean", -1), ("last", -1), ("weighted", 1)])
def test_equal_to_one_example_at_a_time(tiny_checkpoint, one_device_mesh, examples, pooling, layer):
    config, params = model_of(tiny_checkpoint, one_device_mesh)
    ours = all_states(
        config, params, examples, one_device_mesh, StateSettings(pooling, layer), batch_tokens=512
    )
    np.testing.assert_allclose(ours, slow_states(config, params, examples, pooling, layer), atol=2e-5)


def test_on_many_devices_and_in_small_chunks(
    tiny_checkpoint, one_device_mesh, cube_mesh, examples, monkeypatch
):
    settings = StateSettings("weighted")
    config, params = model_of(tiny_checkpoint, one_device_mesh)
    whole = all_states(config, params, examples, one_device_mesh, settings)
    monkeypatch.setattr(module, "CHUNK", 16)
    config, params = model_of(tiny_checkpoint, cube_mesh)
    spread = all_states(config, params, examples, cube_mesh, settings, batch_tokens=256)
    np.testing.assert_allclose(spread, whole, atol=2e-5)
    some = list(
        hidden_states(
            config, params, examples, cube_mesh, settings, max_length=64, batch_tokens=256,
            skip=lambda start: start != 32,
        )
    )  # fmt: skip
    assert [start for start, _ in some] == [32]
    assert np.array_equal(some[0][1], spread[32:48])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (StateSettings("sum"), "pooling must be one of mean, last, weighted, got 'sum'"),
        (StateSettings(layer=3), "layer=3: the model has 2"),
        (StateSettings(layer=0), "layer=0"),
    ],
)
def test_settings_that_do_not_fit(tiny_checkpoint, one_device_mesh, settings, message):
    config, _ = model_of(tiny_checkpoint, one_device_mesh)
    with pytest.raises(InputError, match=message):
        settings.check(config)
