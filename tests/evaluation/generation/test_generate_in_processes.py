"""Models on several processes: what one process would load, answer and save."""

import json

import pytest

from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.models import weights
from s2l_jax.parallel.placement import load_model
from tests.support.paths import GOLDEN
from tests.support.processes import run_together

pytestmark = pytest.mark.long

LLAMA = GOLDEN / "llama"


def test_two_processes_load_generate_and_save_as_one(tmp_path, one_device_mesh):
    run_together("generate_in_processes.py", LLAMA, tmp_path, timeout=240)
    model = load_model(str(LLAMA), one_device_mesh)
    prompts = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 5, 8, 9]]
    answers = generate(model, prompts, max_new_tokens=6, end_tokens=[2], mesh=one_device_mesh)
    assert [json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2)] == [answers, answers]
    assert any(answers)
    saved, original = ((folder / weights.WEIGHTS).read_bytes() for folder in (tmp_path / "hf", LLAMA))
    assert saved == original
