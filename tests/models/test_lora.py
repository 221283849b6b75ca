"""LoRA in the decoder and the config: fresh adapters change nothing, merged ones say what they said."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from s2l_jax.config import default, validate
from s2l_jax.errors import InputError
from s2l_jax.models.lora import PROJECTIONS, merge
from s2l_jax.models.parameters import (
    bind,
    flatten_params,
    joined,
    num_parameters,
    num_trained,
)
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.placement import adapter_shardings, random_adapters
from s2l_jax.training.flops import training_flops
from tests.support.adapters import (
    TOKENS,
    adapted,
    assert_near,
    base_params,
    batches_of,
    logits_of,
    noisy_adapters,
    numbers,
)

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*dropout"),  # GPT-2 and Phi-2 name some
]


class TestModel:
    def test_fresh_adapters_change_nothing(self, one_device_mesh):
        config = adapted("gpt_neox")
        fresh = random_adapters(config, one_device_mesh, jax.random.key(0))
        base = base_params("gpt_neox", one_device_mesh)
        plain = logits_of(bind(dataclasses.replace(config, lora=None), base), TOKENS)
        assert np.array_equal(logits_of(bind(config, joined(base, fresh)), TOKENS), plain)

    def test_initial_values(self, one_device_mesh):
        config = adapted("llama")
        fresh = numbers(random_adapters(config, one_device_mesh, jax.random.key(0)))
        assert len(fresh) == 2 * len(PROJECTIONS)
        for path, leaf in fresh.items():
            if path.endswith("/b"):
                assert not leaf.any()
                continue
            bound = np.prod(leaf.shape[1:-1]) ** -0.5
            assert 0.9 * bound < np.abs(leaf).max() <= bound, path
            assert not np.array_equal(leaf[0], leaf[1]), "layers differ"
        other = numbers(random_adapters(config, one_device_mesh, jax.random.key(1)))
        path = "layers/mlp/down/lora/a"
        assert not np.array_equal(fresh[path], other[path])

    @pytest.mark.parametrize("variant", ["gpt_neox", "llama", "gpt2"])
    def test_merged_weights_equal_the_adapters(self, variant, one_device_mesh):
        config = adapted(variant)
        adapters = noisy_adapters(config, one_device_mesh)
        base = base_params(variant, one_device_mesh)
        plain = logits_of(bind(dataclasses.replace(config, lora=None), base), TOKENS)
        ours = logits_of(bind(config, joined(base, adapters)), TOKENS)
        merged = bind(dataclasses.replace(config, lora=None), merge(base, adapters, config.lora))
        assert np.abs(ours - plain).max() > 0.05 * np.abs(plain).max()
        assert_near(logits_of(merged, TOKENS), ours)

    def test_only_named_projections_have_adapters(self, one_device_mesh):
        config = adapted("llama", ("query", "down"))
        adapters = random_adapters(config, one_device_mesh, jax.random.key(0))
        assert {path.split("/")[2] for path in flatten_params(adapters)} == {"query", "down"}
        assert num_trained(config) == sum(leaf.size for leaf in jax.tree.leaves(adapters))
        assert num_parameters(config) == num_trained(config) + num_parameters(
            dataclasses.replace(config, lora=None)
        )

    def test_the_rank_axis_is_whole_and_the_others_are_spread(self):
        mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
        specs = {p: s.spec for p, s in flatten_params(adapter_shardings(adapted("llama"), mesh)).items()}
        assert specs["layers/attention/query/lora/a"] == P(None, "fsdp", None)
        assert specs["layers/attention/query/lora/b"] == P(None, None, "tensor", None)
        assert specs["layers/mlp/down/lora/a"] == P(None, "tensor", None)
        assert specs["layers/mlp/down/lora/b"] == P(None, None, "fsdp")

    def test_frozen_weights_cost_no_gradient(self):
        config, size = adapted("llama"), batches_of().size(1)
        full = training_flops(dataclasses.replace(config, lora=None), size)
        assert training_flops(config, size) == pytest.approx(
            full * 2 / 3 + 6 * num_trained(config) * size.tokens
        )


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"projections": ("query", "valu")}, "no projection 'valu'; did you mean 'value'"),
            ({"projections": ()}, r"projections=\(\): must be projections of a layer, or all"),
            ({"rank": -1}, r"target.lora.rank=-1: must be 0 or above"),
            ({"alpha": 0.0}, "target.lora.alpha=0.0: must be above 0"),
            ({"dropout": 1.0}, "target.lora.dropout=1.0: must be at least 0 and below 1"),
            ({"export": "peft"}, "target.lora.export='peft': must be one of merged, adapter"),
        ],
    )
    def test_bad_settings_are_refused(self, fields, message):
        config = default()
        config.target.lora.rank = 4
        config.target.lora.update(fields)
        with pytest.raises(InputError, match=message):
            validate(config)

    def test_an_adapter_of_random_weights_is_refused(self):
        config = default()
        config.target.update(init="random", model_config="config.json")
        config.target.lora.update(rank=4, export="adapter")
        with pytest.raises(InputError, match="keeps none"):
            validate(config)
        config.target.lora.export = "merged"
        validate(config)
