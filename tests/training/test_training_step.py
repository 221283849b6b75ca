"""One optimiser step is the same however its examples are packed, accumulated, sharded or chunked."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2l_jax.data.batching import Batches
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.models.parameters import bind, flatten_params, model_params
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.placement import load_model, random_params
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training import cross_entropy
from s2l_jax.training.optimizer import OptimizerSettings, learning_rate_schedule, make_optimizer
from s2l_jax.training.step import TrainState, init_state, make_train_step
from tests.support.paths import GOLDEN

GPT_NEOX = GOLDEN / "gpt_neox"
BATCH, STEPS, LENGTH = 8, 3, 32
# A large epsilon keeps Adam from blowing rounding noise up to full steps.
SETTINGS = OptimizerSettings(
    learning_rate=1e-2, warmup_fraction=0.0, clip_norm=0.0, epsilon=1e-3, weight_decay=0.1
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make_examples():
    rng = np.random.default_rng(0)
    examples = []
    for number in range(BATCH * STEPS):
        # One has no prompt; two have no response left.
        prompt, response = rng.integers(1, 8), rng.integers(4, 24)
        prompt, response = {6: (0, 9), 8: (6, 0), 13: (LENGTH, 0)}.get(number, (prompt, response))
        tokens = rng.integers(0, 64, prompt + response).astype(np.int32)
        examples.append(TokenizedExample(tokens, int(prompt), False, False))
    return examples


EXAMPLES = make_examples()
WEIGHTS = np.random.default_rng(1).uniform(0.5, 3.0, len(EXAMPLES)).astype(np.float32)


def batches_of(*, microbatches=1, groups=1, pack=True):
    return Batches(
        TokenizedList(EXAMPLES),
        np.arange(len(EXAMPLES)),
        WEIGHTS,
        batch_size=BATCH,
        num_steps=STEPS,
        seed=4,
        max_length=LENGTH,
        microbatches=microbatches,
        groups=groups,
        local_groups=range(groups),
        pack=pack,
    )


@dataclasses.dataclass
class Outcome:
    """What some steps left behind; `grads` are those of the first."""

    losses: np.ndarray
    norm: float
    grads: dict
    params: dict
    state: TrainState
    program: jax.stages.Compiled


def run(mesh, *, steps=1, microbatches=1, pack=True, **options):
    model = load_model(str(GPT_NEOX), mesh)
    batches = batches_of(microbatches=microbatches, groups=row_groups(mesh), pack=pack)
    state = init_state(model.config, SETTINGS, STEPS, mesh, model_params(model))
    # Not the cached function: a test changes the module underneath.
    step_fn = make_train_step.__wrapped__(model.config, SETTINGS, STEPS, mesh, **options)
    rows = [put_rows(mesh, batches.read(step).rows, axis=1) for step in range(steps)]
    program = step_fn.lower(state, rows[0]).compile()
    losses, norms = [], []
    for step in range(steps):
        state, metrics = program(state, rows[step])
        losses.append(float(metrics.loss))
        norms.append(float(metrics.grad_norm))
        if step == 0:
            # Without clipping Adam's first moment is a tenth of the first gradient.
            moment = optax.tree_utils.tree_get(state.opt_state, "mu")
            grads = {k: np.asarray(v) * 10 for k, v in flatten_params(moment).items()}
    assert int(state.step) == steps
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(state))
    params = {k: np.asarray(v) for k, v in flatten_params(state.params).items()}
    return Outcome(np.array(losses), norms[0], grads, params, state, program)


def assert_same(ours, reference, tolerance=2e-6):
    """Losses and each leaf's gradient equal, relative to the leaf's largest entry."""
    np.testing.assert_allclose(ours.losses, reference.losses, rtol=tolerance)
    np.testing.assert_allclose(ours.norm, reference.norm, rtol=10 * tolerance)
    assert ours.grads.keys() == reference.grads.keys()
    whole = max(np.abs(g).max() for g in reference.grads.values())
    for path, want in reference.grads.items():
        scale = max(np.abs(want).max(), 1e-3 * whole)
        np.testing.assert_allclose(ours.grads[path], want, rtol=0, atol=10 * tolerance * scale, err_msg=path)


def first_step(outcome):
    return dataclasses.replace(outcome, losses=outcome.losses[:1])


@pytest.fixture(scope="module")
def token_run(one_device_mesh):
    return run(one_device_mesh, steps=STEPS)


@pytest.fixture(scope="module")
def example_run(one_device_mesh):
    return run(one_device_mesh, loss="example")


@pytest.fixture(scope="module")
def oracle(one_device_mesh):
    """Summed loss and response tokens of each example, each in a row of its own."""
    model = load_model(str(GPT_NEOX), one_device_mesh)
    rows = np.zeros((2, len(EXAMPLES), LENGTH), np.int32)
    for i, example in enumerate(EXAMPLES):
        rows[0, i, : len(example.tokens)] = example.tokens
        rows[1, i, : len(example.tokens)] = 1
    positions = np.broadcast_to(np.arange(LENGTH), rows[0].shape)
    logits = np.asarray(
        jax.jit(lambda m, *row: m.logits(m(*row)))(model, rows[0], positions, rows[1]), np.float64
    )
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    sums, counts = np.zeros(len(EXAMPLES)), np.zeros(len(EXAMPLES))
    for i, example in enumerate(EXAMPLES):
        for t in range(max(example.prompt_length, 1), len(example.tokens)):
            sums[i] -= logp[i, t - 1, example.tokens[t]]
            counts[i] += 1
    return sums, counts


def test_the_batches_hold_every_kind_of_example():
    batches = batches_of()
    first = set(batches.read(0).examples.tolist())
    assert len(first) == BATCH
    assert batches.read(0).rows.tokens.shape[2] < BATCH, "something is packed"
    seen = np.concatenate([batches.read(step).examples for step in range(STEPS)])
    assert sorted(seen) == list(range(len(EXAMPLES)))
    assert first > {6, 8, 13}, "the first batch holds the odd examples"


def test_token_loss_is_the_sum_over_the_number_of_response_tokens(token_run, oracle):
    sums, counts = oracle
    batch = batches_of().read(0).examples
    np.testing.assert_allclose(token_run.losses[0], sums[batch].sum() / counts[batch].sum(), rtol=2e-6)


def test_example_loss_is_the_weighted_mean_of_example_losses(example_run, oracle):
    sums, counts = oracle
    batch = batches_of().read(0).examples
    batch = batch[counts[batch] > 0]
    want = np.average(sums[batch] / counts[batch], weights=WEIGHTS[batch])
    np.testing.assert_allclose(example_run.losses[0], want, rtol=2e-6)


def test_the_two_losses_differ(token_run, example_run):
    assert abs(token_run.losses[0] - example_run.losses[0]) > 1e-2


@pytest.mark.parametrize(("microbatches", "pack"), [(2, False), (4, True)])
def test_padded_and_accumulated_token_loss_equals_packed(microbatches, pack, one_device_mesh, token_run):
    ours = run(one_device_mesh, microbatches=microbatches, pack=pack)
    assert_same(ours, first_step(token_run))


def test_padded_and_accumulated_example_loss_equals_packed(one_device_mesh, example_run):
    assert_same(run(one_device_mesh, microbatches=4, pack=False, loss="example"), example_run)


def falling(rows):
    """A loss of its own: a token counts the less, the later it comes in its example."""
    places = jnp.take_along_axis(
        rows.positions.reshape(*rows.loss_index.shape[:-1], -1), rows.loss_index, axis=-1
    )
    return rows.loss_mask / (1.0 + places) / rows.loss_mask.sum()


def test_a_step_takes_the_gradient_of_a_loss_that_is_handed_in(one_device_mesh):
    batch = [EXAMPLES[n] for n in batches_of().read(0).examples]
    tokens, segments, counts = np.zeros((3, BATCH, LENGTH))
    for row, example in enumerate(batch):
        length, start = len(example.tokens), max(example.prompt_length, 1)
        tokens[row, :length], segments[row, :length] = example.tokens, 1
        counts[row, start - 1 : length - 1] = 1 / np.arange(start, length)
    total = sum(max(len(e.tokens) - max(e.prompt_length, 1), 0) for e in batch)
    model = load_model(str(GPT_NEOX), one_device_mesh)

    @jax.jit
    @jax.value_and_grad
    def by_hand(params):
        decoder = bind(model.config, params)
        positions = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
        logits = decoder.logits(decoder(tokens.astype(int), positions, segments.astype(int)))
        targets = jnp.roll(tokens, -1, axis=1).astype(int)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return (counts * losses).sum() / total

    value, grads = by_hand(model_params(model))
    ours = run(one_device_mesh, microbatches=2, loss=falling)
    np.testing.assert_allclose(ours.losses, [value], rtol=2e-6)
    norm = float(optax.tree.norm(grads))
    reference = dataclasses.replace(
        ours,
        losses=np.array([value]),
        norm=norm,
        grads={k: np.asarray(v) for k, v in flatten_params(grads).items()},
    )
    assert_same(ours, reference)


def test_grad_norm_is_that_of_the_gradients(token_run):
    squares = sum(np.square(g, dtype=np.float64).sum() for g in token_run.grads.values())
    np.testing.assert_allclose(token_run.norm, np.sqrt(squares), rtol=1e-5)
    assert all(np.abs(g).max() > 0 for g in token_run.grads.values())


@pytest.fixture(scope="module")
def cube_run(cube_mesh):
    return run(cube_mesh, steps=STEPS, microbatches=2)


def test_a_cube_of_devices_equals_one(cube_run, token_run):
    assert_same(cube_run, token_run, tolerance=5e-6)
    start = flatten_params(model_params(load_model(str(GPT_NEOX))))
    for path, want in token_run.params.items():
        assert np.abs(want - start[path]).max() > 1e-3, path
        np.testing.assert_allclose(cube_run.params[path], want, atol=2e-5, err_msg=path)


def test_the_compiled_step_keeps_nothing_large_replicated_over_fsdp(cube_run, cube_mesh):
    (state_in, rows_in), _ = cube_run.program.input_shardings
    state_out, _ = cube_run.program.output_shardings
    for shardings in (state_in, state_out):
        leaves = zip(jax.tree.leaves(cube_run.state), jax.tree.leaves(shardings), strict=True)
        large = [(leaf.shape, sharding) for leaf, sharding in leaves if leaf.size > 256]
        assert len(large) == 3 * 8, "eight matrices and their two moments"
        for shape, sharding in large:
            assert math.prod(sharding.shard_shape(shape)) * 4 == math.prod(shape)
            assert is_split(sharding, shape, "fsdp", cube_mesh)
        params = flatten_params(shardings.params)
        for moment in ("mu", "nu"):
            lying = flatten_params(optax.tree_utils.tree_get(shardings.opt_state, moment))
            assert lying.keys() == params.keys()
            for path, leaf in cube_run.params.items():
                assert lying[path].is_equivalent_to(params[path], leaf.ndim), path
    rows = batches_of(microbatches=2, groups=4).read(0).rows
    used = [(leaf.shape, sharding) for leaf, sharding in zip(rows, rows_in, strict=True) if sharding]
    assert len(used) >= 6
    for shape, sharding in used:
        assert sharding.shard_shape(shape)[1] == 1, "each row group lies on its own devices"


def is_split(sharding, shape, axis, mesh):
    """Whether neighbours along a mesh axis hold different parts of an array."""
    index = sharding.devices_indices_map(shape)
    first, second = np.moveaxis(mesh.devices, mesh.axis_names.index(axis), 0)
    return all(index[a] != index[b] for a, b in zip(first.flat, second.flat, strict=True))


def test_chunked_logits_and_recomputed_layers_change_nothing(one_device_mesh, token_run, monkeypatch):
    assert batches_of().read(0).rows.loss_mask.sum() > 64, "more than one chunk"
    monkeypatch.setattr(cross_entropy, "_LOGITS_AT_ONCE", 1)
    assert_same(run(one_device_mesh, remat="full"), first_step(token_run))


def test_bfloat16_compute_is_near_and_keeps_float32_state(one_device_mesh, token_run):
    ours = run(one_device_mesh, dtype=jnp.bfloat16)
    assert 0 < abs(ours.losses[0] - token_run.losses[0]) < 1e-2
    for path, want in token_run.grads.items():
        error = np.linalg.norm(ours.grads[path] - want) / np.linalg.norm(want)
        assert error < 0.05 or path == "layers/attention/key/bias", (path, error)


def test_a_frequent_token_keeps_its_gradient_in_bfloat16(one_device_mesh):
    model = load_model(str(GPT_NEOX), one_device_mesh)
    tokens, row = np.zeros((1, 2000), np.int32), np.ones((1, 2000), np.int32)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), model_params(model))

    def first_channel(table):
        embedded = bind(model.config, params | {"embed": {"embedding": table}})._looked_up(
            tokens, tokens, jnp.float32
        )
        return embedded[..., 0].astype(jnp.float32).sum()

    grads = jax.jit(jax.grad(first_channel))(params["embed"]["embedding"])
    assert grads.dtype == jnp.bfloat16
    assert float(grads[0, 0]) == row.size


def hf_rate(step, num_steps, settings):
    """The Trainer's schedule, written out for one step."""
    warmup = math.ceil(num_steps * settings.warmup_fraction)
    if step < warmup:
        return settings.learning_rate * step / max(1, warmup)
    progress = (step - warmup) / max(1, num_steps - warmup)
    factor = {
        "cosine": max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress))),
        "linear": max(0.0, 1.0 - progress),
        "constant": 1.0,
    }
    return settings.learning_rate * factor[settings.schedule]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("fraction", "num_steps"), [(0.0, 7), (0.03, 10), (0.03, 101), (0.5, 3)])
def test_schedule_is_that_of_the_hf_trainer(schedule, fraction, num_steps):
    settings = OptimizerSettings(learning_rate=2e-5, schedule=schedule, warmup_fraction=fraction)
    rates = jax.vmap(learning_rate_schedule(settings, num_steps))(jnp.arange(num_steps + 1))
    want = [hf_rate(step, num_steps, settings) for step in range(num_steps + 1)]
    np.testing.assert_allclose(rates, want, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_optimiser_is_adamw_with_clipping_and_no_decay_of_biases_and_norms(clip):
    settings = OptimizerSettings(
        learning_rate=0.1, warmup_fraction=0.0, schedule="linear", weight_decay=0.3, clip_norm=clip
    )
    rng = np.random.default_rng(0)
    names = ("embed/embedding", "mlp/up/kernel", "mlp/up/bias", "norm/scale")
    weights = {n: rng.normal(size=(3, 2)).astype(np.float32) for n in names}
    optimizer = make_optimizer(settings, num_steps := 4)
    ours = {n.split("/")[0]: {} for n in names}

    def nest(flat):
        embed, up, bias, scale = (jnp.asarray(flat[n], jnp.float32) for n in names)
        return {
            "embed": {"embedding": embed},
            "mlp": {"up": {"kernel": up, "bias": bias}},
            "norm": {"scale": scale},
        }

    ours = nest(weights)
    state, update = optimizer.init(ours), jax.jit(optimizer.update)
    first, second = ({n: np.zeros((3, 2)) for n in names} for _ in range(2))
    for step in range(num_steps):
        grads = {n: rng.normal(size=(3, 2)) for n in names}
        updates, state = update(nest(grads), state, ours)
        ours = optax.apply_updates(ours, updates)
        norm = np.sqrt(sum(np.square(g).sum() for g in grads.values()))
        assert norm > 0.5
        factor = min(1.0, clip / norm) if clip else 1.0
        rate = hf_rate(step, num_steps, settings)
        for name, grad in grads.items():
            first[name] = 0.9 * first[name] + 0.1 * factor * grad
            second[name] = 0.999 * second[name] + 0.001 * (factor * grad) ** 2
            direction = (first[name] / (1 - 0.9 ** (step + 1))) / (
                np.sqrt(second[name] / (1 - 0.999 ** (step + 1))) + 1e-8
            )
            if name.endswith(("kernel", "embedding")):
                direction = direction + 0.3 * weights[name]
            weights[name] = weights[name] - rate * direction
    for name, leaf in flatten_params(ours).items():
        np.testing.assert_allclose(leaf, weights[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("loss", ["token", "example"])
def test_a_batch_without_response_tokens_has_no_gradient(loss, one_device_mesh, request):
    program = request.getfixturevalue(f"{loss}_run").program
    rows = batches_of().read(0).rows
    rows = rows._replace(loss_mask=np.zeros_like(rows.loss_mask), weights=np.zeros_like(rows.weights))
    model = load_model(str(GPT_NEOX), one_device_mesh)
    state = init_state(model.config, SETTINGS, STEPS, one_device_mesh, model_params(model))
    state, metrics = program(state, put_rows(one_device_mesh, rows, axis=1))
    assert float(metrics.loss) == float(metrics.grad_norm) == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_the_step_leaves_the_types_of_a_random_model_as_they_are(one_device_mesh):
    """A leaf that it changes, if only from a weak type to a strong one, has it compiled twice."""
    config = load_model(str(GPT_NEOX), one_device_mesh).config
    params = random_params(config, one_device_mesh, jax.random.key(0))
    state = init_state(config, SETTINGS, STEPS, one_device_mesh, params)
    rows = put_rows(one_device_mesh, batches_of().read(0).rows, axis=1)
    step = make_train_step(config, SETTINGS, STEPS, one_device_mesh)
    after = jax.eval_shape(step, state, rows)[0]
    for before, then in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        assert (before.dtype, before.weak_type) == (then.dtype, then.weak_type)
