"""LoRA in the pipeline: adapters are trained, exported, loaded and compared with what was there."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from s2l_jax.config import default, run
from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.pipeline import run_pipeline
from s2l_jax.training.export import export, load_export
from s2l_jax.training.run import Run
from tests.support.adapters import (
    TOKENS,
    assert_near,
    logits_of,
    noisy_adapters,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*dropout"),  # GPT-2 and Phi-2 name some
]


@pytest.fixture(scope="module")
def finished_pipeline(tiny_checkpoint, tmp_path_factory):
    """A pipeline with adapters, its config and its results."""
    config = default()
    config.pool.limit = 120
    config.tokenize.update(prompt="plain", max_length=96)
    config.target.checkpoint = str(tiny_checkpoint)
    config.target.train.update(steps=4, batch_size=8, learning_rate=1e-2, dtype="float32")
    config.target.lora.update(rank=2, dropout=0.1, export="adapter")
    config.evaluation.update(path="synthetic", limit=6, max_new_tokens=4)
    config.selection.budget = 40
    config.selection.runs.random = run(method="random")
    config.mesh.update(data=4, fsdp=2)
    workdir = epath.Path(tmp_path_factory.mktemp("pipeline"))
    return workdir, config, run_pipeline(config, workdir)


class TestStages:
    def test_an_adapter_is_exported_and_evaluated(self, finished_pipeline):
        workdir, config, results = finished_pipeline
        evaluations = results["evaluations"]
        tuned, untuned = (evaluations[name]["overall"]["heldout_loss"] for name in ("random", "untuned"))
        assert tuned < untuned - 0.05
        target = results["targets"]["random"]
        assert 0 < target["trained_parameters"] < target["parameters"] / 5
        folder = workdir / "target" / "random"
        assert not (folder / "hf").exists()
        settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == config.target.checkpoint
        hf.load_tokenizer(folder / "adapter")

    def test_another_lora_under_the_same_name_is_refused(self, finished_pipeline):
        workdir, config, _ = finished_pipeline
        other = config.copy_and_resolve_references()
        other.target.lora.alpha = 8.0
        with pytest.raises(InputError, match=r"target\.lora\.alpha: 16\.0 before, 8\.0 now"):
            run_pipeline(other, workdir)

    def test_a_projection_that_the_model_has_not(self, finished_pipeline, tmp_path):
        other = finished_pipeline[1].copy_and_resolve_references()
        other.target.lora.projections = ("gate",)
        with pytest.raises(InputError, match="a gpt_neox model has no gate; it has query, key"):
            run_pipeline(other, tmp_path)

    def test_both_exports_hold_the_same_model(self, finished_pipeline, tmp_path, cube_mesh):
        config = finished_pipeline[1].copy_and_resolve_references()
        logits = {}
        for kind in ("merged", "adapter"):
            config.target.lora.export = kind
            sitting = Run(config, epath.Path(tmp_path), cube_mesh)
            model = sitting.model("target")
            adapters = noisy_adapters(model.trained_config, cube_mesh)
            export(sitting, model, adapters, epath.Path(tmp_path))
            loaded, _ = load_export(sitting, epath.Path(tmp_path), jnp.float32)
            logits[kind] = logits_of(loaded, TOKENS)
        assert_near(logits["adapter"], logits["merged"])
        assert np.abs(logits["merged"] - logits_of(model.bound(jnp.float32), TOKENS)).max() > 0.1
