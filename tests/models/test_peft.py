"""Adapters in PEFT's files: read back as written, with its logits and, after its steps, its weights."""

import copy
import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.models.lora import Lora
from s2l_jax.models.parameters import (
    bind,
    flatten_params,
    joined,
)
from s2l_jax.models.peft import load_adapter, save_adapter
from tests.support.adapters import (
    EXAMPLES,
    OPTIMIZER,
    STEPS,
    TOKENS,
    Outcome,
    adapted,
    assert_near,
    assert_same,
    base_params,
    batches_of,
    logits_of,
    noisy_adapters,
    numbers,
    train_steps,
)
from tests.support.paths import GOLDEN

FAMILY_NAMES = ("gemma", "gpt2", "gpt_neox", "llama", "mistral", "phi", "phi3", "qwen2", "qwen3")


pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*dropout"),  # GPT-2 and Phi-2 name some
]


class TestPeftFiles:
    @pytest.mark.parametrize("variant", FAMILY_NAMES)
    def test_what_is_written_is_read_back(self, variant, tmp_path, one_device_mesh):
        config = adapted(variant)
        adapters = noisy_adapters(config, one_device_mesh)
        save_adapter(tmp_path, adapters, config, base="here", dtype=jnp.float32)
        again = flatten_params(load_adapter(tmp_path, config))
        assert again.keys() == flatten_params(adapters).keys()
        assert all(np.array_equal(again[path], leaf) for path, leaf in numbers(adapters).items())

    def test_another_adapter_is_refused(self, tmp_path, one_device_mesh):
        config = adapted("llama", ("query",))
        with pytest.raises(InputError, match="no such file"):
            load_adapter(tmp_path, config)
        adapters = noisy_adapters(config, one_device_mesh)
        save_adapter(tmp_path, adapters, config, base="here", dtype=jnp.bfloat16)
        for lora, message in (
            (Lora(4, 6.0, ("query", "up")), "no base_model.model.model.layers.0.mlp.up_proj.lora_A"),
            (Lora(2, 6.0, ("query",)), "has rank 4"),
        ):
            with pytest.raises(InputError, match=message):
                load_adapter(tmp_path, dataclasses.replace(config, lora=lora))

    @pytest.mark.parametrize(
        ("variant", "projections"),
        [(variant, None) for variant in FAMILY_NAMES]
        + [(variant, ("query", "value", "up")) for variant in ("gpt2", "gpt_neox", "llama", "phi3")],
    )
    def test_peft_has_our_logits(self, variant, projections, tmp_path, one_device_mesh):
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        peft = pytest.importorskip("peft")
        config = adapted(variant, projections)
        adapters = noisy_adapters(config, one_device_mesh)
        save_adapter(tmp_path, adapters, config, base=str(GOLDEN / variant), dtype=jnp.float32)
        base = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / variant)
        with torch.no_grad():
            plain = base(torch.tensor(TOKENS)).logits.numpy()
            model = peft.PeftModel.from_pretrained(base, tmp_path)
            theirs = model(torch.tensor(TOKENS)).logits.numpy()
            merged = model.merge_and_unload()(torch.tensor(TOKENS)).logits.numpy()
        ours = logits_of(bind(config, joined(base_params(variant, one_device_mesh), adapters)), TOKENS)
        assert np.abs(theirs - plain).max() > 0.01 * np.abs(plain).max()
        assert_near(ours, theirs)
        assert_near(merged, theirs)


@pytest.mark.parametrize("variant", ["llama", "gpt_neox"])
def test_steps_equal_pefts(variant, tmp_path, one_device_mesh):
    """AdamW on the adapters, from the same start, on the same batches."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = adapted(variant)
    start = noisy_adapters(config, one_device_mesh)
    save_adapter(tmp_path, start, config, base=str(GOLDEN / variant), dtype=jnp.float32)
    base = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / variant)
    model = peft.PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in parameters)
    for name, parameter in parameters.items():
        if "lora_B" in name:  # what fused projections do not share stays 0
            parameter.register_hook(functools.partial(torch.mul, parameter.detach() != 0))
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=OPTIMIZER.learning_rate, eps=OPTIMIZER.epsilon, weight_decay=0.1
    )
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 0, STEPS)
    batches, losses = batches_of(), []
    for step in range(STEPS):
        total, count = 0.0, 0
        for number in batches.read(step).examples:
            example = EXAMPLES[number]
            ids = torch.tensor(example.tokens, dtype=torch.long)[None]
            logp = torch.log_softmax(model(ids).logits[0, :-1], dim=-1)
            picked = -logp[torch.arange(ids.shape[1] - 1), ids[0, 1:]][example.prompt_length - 1 :]
            total, count = total + picked.sum(), count + len(picked)
        (total / count).backward()
        losses.append(float((total / count).detach()))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    ours = train_steps(config, one_device_mesh, variant=variant, steps=STEPS, adapters=copy.copy(start))
    np.testing.assert_allclose(ours.losses, losses, rtol=2e-5)
    model.save_pretrained(tmp_path / "after")
    theirs = flatten_params(load_adapter(tmp_path / "after", config))
    assert_same(ours, Outcome(ours.losses, theirs), tolerance=2e-4)
