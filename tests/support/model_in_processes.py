"""One of two processes that share a model's parts; not a test itself: RANK PORT MODEL OUT."""

import dataclasses
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.features.compute.example_gradients import ExampleGradients
from s2l_jax.features.compute.pooled_states import hidden_states
from s2l_jax.features.compute.state_settings import StateSettings
from s2l_jax.models import hf
from s2l_jax.models.lora import Lora
from s2l_jax.models.parameters import model_params
from s2l_jax.parallel import processes
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.placement import load_model, random_adapters

PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 5, 8, 9]]


def answers_of(model, mesh):
    """What the model answers to `PROMPTS`."""
    return generate(model, PROMPTS, max_new_tokens=6, end_tokens=[2], mesh=mesh, batch_size=2)


def vectors_of(model, mesh):
    """Hidden states, and gradients in adapters, of a few examples."""
    rng = np.random.default_rng(0)
    examples = TokenizedList(
        TokenizedExample(rng.integers(3, 60, n).astype(np.int32), int(n) // 2, False, False)
        for n in rng.integers(4, 30, 14)
    )
    params = model_params(model)
    states = hidden_states(
        model.config, params, examples, mesh, StateSettings("weighted"), max_length=32, batch_tokens=32
    )
    config = dataclasses.replace(model.config, lora=Lora(2, 4.0, ("query", "up")))
    adapters = random_adapters(config, mesh, jax.random.key(1))
    adapters = jax.tree.map(lambda p: p + jnp.asarray(0.02, p.dtype), adapters)  # else `a` has no gradient
    gradients = ExampleGradients(config, mesh, dims=16, batch_tokens=64)
    return {
        "states": np.concatenate([chunk for _, chunk in states]),
        "gradients": gradients.of(params, adapters, examples, np.arange(14)),
    }


def main(rank: str, port: str, directory: str, out: str) -> None:
    os.environ |= {
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": rank,
    }  # fmt: skip
    jax.config.update("jax_disable_most_optimizations", True)
    processes.start()
    # Both processes have devices of both row groups, and halves of all weights.
    mesh = make_mesh(1, 2, 2, devices=[jax.devices()[n] for n in (0, 2, 1, 3)])
    model = load_model(directory, mesh)
    answers = np.array(answers_of(model, mesh), dtype=object)
    np.savez(f"{out}/{rank}.npz", answers=answers, **vectors_of(model, mesh))
    config = hf.read_config(directory)
    hf.save_model(pathlib.Path(out) / "hf", model_params(model), model.config, config, dtype=jnp.float32)


if __name__ == "__main__":
    main(*sys.argv[1:])
