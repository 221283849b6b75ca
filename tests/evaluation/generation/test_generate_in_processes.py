"""Models on several processes: what one process would load, answer and save."""

import json
import os
import socket
import subprocess
import sys

from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.models import weights
from s2l_jax.parallel.placement import load_model
from tests.support.paths import GOLDEN, REPOSITORY, SUPPORT

LLAMA = GOLDEN / "llama"


def test_two_processes_load_generate_and_save_as_one(tmp_path, one_device_mesh):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SUPPORT / "generate_in_processes.py")]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    arguments = [str(port), str(LLAMA), str(tmp_path)]
    running = [
        subprocess.Popen(
            [*command, str(n), *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for n in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0].decode() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], outputs
    model = load_model(str(LLAMA), one_device_mesh)
    prompts = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 5, 8, 9]]
    answers = generate(model, prompts, max_new_tokens=6, end_tokens=[2], mesh=one_device_mesh)
    assert [json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2)] == [answers, answers]
    assert any(answers)
    saved, original = ((folder / weights.WEIGHTS).read_bytes() for folder in (tmp_path / "hf", LLAMA))
    assert saved == original
