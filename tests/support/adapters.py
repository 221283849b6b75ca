"""Adapters, batches and steps that the tests of LoRA share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from s2l_jax.data.batching import Batches
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.models import hf
from s2l_jax.models.lora import Lora, available
from s2l_jax.models.parameters import (
    abstract_params,
    flatten_params,
    model_params,
    trained,
)
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.placement import load_model, put_adapters
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import init_state, make_train_step
from tests.support.paths import GOLDEN

BATCH, STEPS, LENGTH = 8, 4, 32
# A large epsilon keeps Adam from blowing rounding noise up to full steps.
OPTIMIZER = OptimizerSettings(
    learning_rate=1e-2, warmup_fraction=0.0, clip_norm=0.0, epsilon=1e-3, weight_decay=0.1
)


def make_examples():
    rng = np.random.default_rng(0)
    return [
        TokenizedExample(rng.integers(0, 64, n).astype(np.int32), int(rng.integers(1, 5)), False, False)
        for n in rng.integers(8, 24, 20)
    ]


EXAMPLES = make_examples()


def batches_of(*, microbatches=1, groups=1, pack=True, name_examples=True):
    return Batches(
        TokenizedList(EXAMPLES),
        np.arange(len(EXAMPLES)),
        np.ones(len(EXAMPLES), np.float32),
        batch_size=BATCH,
        num_steps=STEPS,
        seed=4,
        max_length=LENGTH,
        microbatches=microbatches,
        groups=groups,
        local_groups=range(groups),
        pack=pack,
        name_examples=name_examples,
    )


def adapted(variant, projections=None, **options):
    """The settings of a variant with adapters on all or some of its projections."""
    config = hf.load_config(GOLDEN / variant)
    names = available(config.gated_mlp) if projections is None else projections
    return dataclasses.replace(config, lora=Lora(4, 6.0, names, **options))


def noisy_adapters(config, mesh, seed=0):
    """Adapters whose product is far from 0."""
    rng = np.random.default_rng(seed)
    shapes = trained(config, abstract_params(config))
    return put_adapters(
        config, mesh, jax.tree.map(lambda x: rng.normal(0, 0.15, x.shape).astype(np.float32), shapes)
    )


def base_params(variant, mesh, dtype=jnp.float32):
    return model_params(load_model(str(GOLDEN / variant), mesh, dtype))


def numbers(params):
    return {path: np.asarray(leaf) for path, leaf in flatten_params(params).items()}


def logits_of(model, tokens):
    tokens = np.asarray(tokens, np.int32)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    forward = jax.jit(lambda m, *row: m.logits(m(*row)))
    return np.asarray(forward(model, tokens, positions, np.ones_like(tokens)))


def assert_near(ours, theirs, tolerance=2e-5):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()


TOKENS = np.random.default_rng(3).integers(0, 64, (2, 12))


@dataclasses.dataclass
class Outcome:
    """Losses of some steps and the adapters after them."""

    losses: np.ndarray
    adapters: dict


def train_steps(
    config,
    mesh,
    *,
    variant="gpt_neox",
    steps=2,
    adapters=None,
    first=0,
    dtype=jnp.float32,
    remat="none",
    **laid,
):
    base = base_params(variant, mesh, dtype)
    before = numbers(base)
    state = init_state(config, OPTIMIZER, STEPS, mesh, adapters or noisy_adapters(config, mesh))
    state = dataclasses.replace(state, step=state.step + first)
    step_fn = make_train_step(config, OPTIMIZER, STEPS, mesh, dtype=dtype, remat=remat)
    batches, losses = batches_of(groups=row_groups(mesh), **laid), []
    for step in range(steps):
        state, metrics = step_fn(state, put_rows(mesh, batches.read(step).rows, axis=1), base)
        losses.append(float(metrics.loss))
    assert all(np.array_equal(leaf, before[path]) for path, leaf in numbers(base).items()), "frozen"
    return Outcome(np.array(losses), numbers(state.params))


def assert_same(ours, reference, tolerance=2e-5):
    np.testing.assert_allclose(ours.losses, reference.losses, rtol=2e-6)
    assert ours.adapters.keys() == reference.adapters.keys()
    for path, want in reference.adapters.items():
        np.testing.assert_allclose(
            ours.adapters[path], want, rtol=0, atol=tolerance * np.abs(want).max(), err_msg=path
        )
