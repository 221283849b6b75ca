"""Models on several processes: what one process would load, answer, save, and tell of examples."""

import numpy as np
import pytest

from s2l_jax.models import weights
from s2l_jax.parallel.placement import load_model
from tests.support.model_in_processes import answers_of, vectors_of
from tests.support.paths import GOLDEN
from tests.support.processes import run_together

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

LLAMA = GOLDEN / "llama"


def test_two_processes_share_a_model_as_one_has_it(tmp_path, one_device_mesh):
    run_together("model_in_processes.py", LLAMA, tmp_path, timeout=240)
    model = load_model(str(LLAMA), one_device_mesh)
    answers, vectors = answers_of(model, one_device_mesh), vectors_of(model, one_device_mesh)
    assert any(answers)
    assert all(np.abs(each).max() > 1e-3 for each in vectors.values())
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz", allow_pickle=True) as shared:
            assert shared["answers"].tolist() == answers
            for name, each in vectors.items():
                np.testing.assert_allclose(shared[name], each, atol=2e-5, err_msg=name)
    saved, original = ((folder / weights.WEIGHTS).read_bytes() for folder in (tmp_path / "hf", LLAMA))
    assert saved == original
