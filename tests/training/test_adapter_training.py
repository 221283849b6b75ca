"""LoRA in training: the same however a step is laid out, gone on with bit for bit, adapters alone kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from s2l_jax.models.lora import PROJECTIONS, Lora, _drop, dropout_noise
from s2l_jax.models.parameters import (
    nest_params,
    num_trained,
)
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.placement import put_adapters, random_adapters
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training import loop
from s2l_jax.training.step import init_state, make_train_step
from tests.support.adapters import (
    OPTIMIZER,
    STEPS,
    adapted,
    assert_same,
    base_params,
    batches_of,
    noisy_adapters,
    numbers,
    train_steps,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*dropout"),  # GPT-2 and Phi-2 name some
]


def some_adapters(**options):
    """Adapters of each kind of projection; fewer compile faster."""
    return adapted("gpt_neox", ("query", "out", "down"), **options)


@pytest.fixture(scope="module")
def reference(one_device_mesh):
    return train_steps(some_adapters(), one_device_mesh)


class TestStep:
    def test_adapters_learn(self, reference, one_device_mesh):
        start = numbers(noisy_adapters(some_adapters(), one_device_mesh))
        assert reference.adapters.keys() == start.keys()
        assert all(np.abs(reference.adapters[path] - start[path]).max() > 1e-4 for path in start)
        after = put_adapters(some_adapters(), one_device_mesh, nest_params(reference.adapters))
        later = train_steps(some_adapters(), one_device_mesh, steps=1, adapters=after)
        assert later.losses[0] < reference.losses[0] - 0.05

    def test_a_sharded_step_equals_a_single_device(self, reference):
        mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
        assert_same(train_steps(some_adapters(), mesh, microbatches=2), reference)

    def test_a_bfloat16_base_is_near(self, reference, one_device_mesh):
        ours = train_steps(some_adapters(), one_device_mesh, dtype=jnp.bfloat16)
        assert all(leaf.dtype == np.float32 for leaf in ours.adapters.values())
        assert 0 < np.abs(ours.losses - reference.losses).max() < 2e-2


def with_dropout(**options):
    return some_adapters(dropout=0.3, **options)


@pytest.fixture(scope="module")
def dropped(one_device_mesh):
    return train_steps(with_dropout(), one_device_mesh)


class TestDropout:
    def test_packing_and_accumulation_do_not_matter(self, dropped, one_device_mesh):
        assert_same(
            train_steps(with_dropout(), one_device_mesh, microbatches=4, pack=False, remat="full"), dropped
        )

    def test_the_mesh_does_not_matter(self, dropped):
        mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
        assert_same(train_steps(with_dropout(), mesh), dropped)

    def test_masks_differ_between_steps(self, dropped, reference, one_device_mesh):
        again, later = (train_steps(with_dropout(), one_device_mesh, steps=1, first=n) for n in (0, 1))
        losses = [float(each.losses[0]) for each in (dropped, later, reference)]
        assert again.losses[0] == dropped.losses[0]
        assert min(abs(a - b) for i, a in enumerate(losses) for b in losses[:i]) > 1e-4

    def test_masks_are_independent_and_keep_the_expectation(self):
        lora = Lora(2, 2.0, PROJECTIONS, dropout=0.25)
        examples, positions = np.divmod(np.arange(64, dtype=np.int32), 16)
        place = (1, 4, 16)
        noise = dropout_noise(lora, 3, jnp.int32(5), examples.reshape(place), positions.reshape(place))
        assert noise.shape == (3, *place)
        rest = (3, jnp.int32(5), examples.reshape(place), positions.reshape(place))
        other = dropout_noise(dataclasses.replace(lora, seed=1), *rest)
        assert not np.isin(noise, other).any()
        assert len(np.unique(noise)) == noise.size
        kept = np.asarray(_drop(jnp.ones((3, 4, 16, 8, 32)), noise[:, 0], 0.25))
        assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
        spread = np.sqrt(0.25 / 0.75)  # of one entry
        for axes in ((0, 1, 2, 3, 4), (1, 2, 3, 4), (0, 1, 3, 4), (0, 1, 2)):
            means = kept.mean(axis=axes)
            assert np.abs(means - 1).max() < 4.5 * spread / np.sqrt(kept.size / np.size(means))
        masks = (kept.reshape(-1, 256) > 0) - 0.75
        correlation = np.corrcoef(masks)[np.triu_indices(len(masks), 1)]
        assert np.abs(correlation).max() < 0.4
        assert np.abs(correlation.mean()) < 0.005

    def test_without_dropout_nothing_is_drawn(self, one_device_mesh):
        texts = []
        for dropout in (0.0, 0.5):
            config = some_adapters(dropout=dropout)
            state = init_state(
                config, OPTIMIZER, STEPS, one_device_mesh, noisy_adapters(config, one_device_mesh)
            )
            rows = put_rows(one_device_mesh, batches_of(name_examples=dropout > 0).read(0).rows, axis=1)
            step_fn = make_train_step(config, OPTIMIZER, STEPS, one_device_mesh)
            texts.append(step_fn.lower(state, rows, base_params("gpt_neox", one_device_mesh)).as_text())
        assert "xor" not in texts[0]
        assert "xor" in texts[1]


class Stop(Exception):
    """Stands for a kill."""


class TestLoop:
    CONFIG = staticmethod(lambda: some_adapters(dropout=0.1))

    def train(self, path, mesh, stop_at=None, monkeypatch=None):
        config = self.CONFIG()
        real = make_train_step

        def stopping(*args, **options):
            step_fn = real(*args, **options)

            def step(state, *inputs):
                if int(state.step) == stop_at:
                    raise Stop
                return step_fn(state, *inputs)

            return step

        if stop_at is not None:
            monkeypatch.setattr(loop, "make_train_step", stopping)
        return loop.train(
            config,
            lambda: random_adapters(config, mesh, jax.random.key(0)),
            batches_of(),
            loop.TrainSettings(OPTIMIZER, checkpoint_every=1, keep_checkpoints=2),
            mesh,
            epath.Path(path),
            label="test",
            frozen=base_params("gpt_neox", mesh),
        )

    @pytest.fixture
    def finished(self, tmp_path, one_device_mesh):
        return tmp_path / "whole", self.train(tmp_path / "whole", one_device_mesh)

    def test_a_stopped_run_goes_on_bit_for_bit(self, finished, tmp_path, one_device_mesh, monkeypatch):
        _, whole = finished
        with monkeypatch.context() as patch, pytest.raises(Stop):
            self.train(tmp_path / "broken", one_device_mesh, stop_at=3, monkeypatch=patch)
        resumed = self.train(tmp_path / "broken", one_device_mesh)
        assert resumed.losses.tobytes() == whole.losses.tobytes()
        assert all(
            np.array_equal(leaf, numbers(whole.params)[path])
            for path, leaf in numbers(resumed.params).items()
        )

    def test_a_checkpoint_holds_adapters_alone(self, finished):
        import orbax.checkpoint as ocp

        tree = ocp.StandardCheckpointer().metadata(finished[0] / "checkpoints" / str(STEPS) / "default")
        leaves = jax.tree_util.tree_flatten_with_path(tree.item_metadata.tree)[0]
        shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        of_adapters = [path for path in shapes if "lora" in path]
        assert len(of_adapters) == 3 * len(numbers(finished[1].params)), "values and two moments"
        sizes = {path: np.prod(shape) for path, shape in shapes.items()}
        assert sum(sizes[path] for path in of_adapters) == 3 * num_trained(self.CONFIG())
        assert sum(sizes.values()) < 3 * num_trained(self.CONFIG()) + 100
