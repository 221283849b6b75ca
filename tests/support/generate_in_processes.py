"""One of several processes that load, generate and save: NUMBER PORT MODEL OUT."""

import json
import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp

from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.models import hf
from s2l_jax.models.parameters import model_params
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.placement import load_model


def main(number: str, port: str, directory: str, out: str) -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(number))
    mesh = make_mesh(1, 2, 2)
    model = load_model(directory, mesh)
    prompts = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 5, 8, 9]]
    answers = generate(model, prompts, max_new_tokens=6, end_tokens=[2], mesh=mesh, batch_size=2)
    config = hf.read_config(directory)
    hf.save_model(pathlib.Path(out) / "hf", model_params(model), model.config, config, dtype=jnp.float32)
    (pathlib.Path(out) / f"{number}.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
