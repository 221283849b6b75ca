"""LoRA: adapters alone are trained and kept, the same however a step is laid out, and as PEFT has them."""

import copy
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.sharding import PartitionSpec as P

from s2l_jax.config import default, run, validate
from s2l_jax.data.batching import Batches
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.models.lora import PROJECTIONS, Lora, _drop, available, dropout_noise, merge
from s2l_jax.models.parameters import (
    abstract_params,
    bind,
    flatten_params,
    joined,
    model_params,
    nest_params,
    num_parameters,
    num_trained,
    trained,
)
from s2l_jax.models.peft import load_adapter, save_adapter
from s2l_jax.parallel.mesh import make_mesh, row_groups
from s2l_jax.parallel.placement import adapter_shardings, load_model, put_adapters, random_adapters
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.pipeline import run_pipeline
from s2l_jax.training import loop
from s2l_jax.training.export import export, load_export
from s2l_jax.training.flops import training_flops
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.run import Run
from s2l_jax.training.step import init_state, make_train_step
from tests.support.paths import GOLDEN

FAMILY_NAMES = ("gemma", "gpt2", "gpt_neox", "llama", "mistral", "phi", "phi3", "qwen2", "qwen3")
BATCH, STEPS, LENGTH = 8, 4, 32
# A large epsilon keeps Adam from blowing rounding noise up to full steps.
OPTIMIZER = OptimizerSettings(
    learning_rate=1e-2, warmup_fraction=0.0, clip_norm=0.0, epsilon=1e-3, weight_decay=0.1
)

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*dropout"),  # GPT-2 and Phi-2 name some
]


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


class TestModel:
    def test_fresh_adapters_change_nothing(self, one_device_mesh):
        config = adapted("gpt_neox")
        fresh = random_adapters(config, one_device_mesh, jax.random.key(0))
        base = base_params("gpt_neox", one_device_mesh)
        plain = logits_of(bind(dataclasses.replace(config, lora=None), base), TOKENS)
        assert np.array_equal(logits_of(bind(config, joined(base, fresh)), TOKENS), plain)

    def test_initial_values(self, one_device_mesh):
        config = adapted("llama")
        fresh = numbers(random_adapters(config, one_device_mesh, jax.random.key(0)))
        assert len(fresh) == 2 * len(PROJECTIONS)
        for path, leaf in fresh.items():
            if path.endswith("/b"):
                assert not leaf.any()
                continue
            bound = np.prod(leaf.shape[1:-1]) ** -0.5
            assert 0.9 * bound < np.abs(leaf).max() <= bound, path
            assert not np.array_equal(leaf[0], leaf[1]), "layers differ"
        other = numbers(random_adapters(config, one_device_mesh, jax.random.key(1)))
        path = "layers/mlp/down/lora/a"
        assert not np.array_equal(fresh[path], other[path])

    @pytest.mark.parametrize("variant", ["gpt_neox", "llama", "gpt2"])
    def test_merged_weights_equal_the_adapters(self, variant, one_device_mesh):
        config = adapted(variant)
        adapters = noisy_adapters(config, one_device_mesh)
        base = base_params(variant, one_device_mesh)
        plain = logits_of(bind(dataclasses.replace(config, lora=None), base), TOKENS)
        ours = logits_of(bind(config, joined(base, adapters)), TOKENS)
        merged = bind(dataclasses.replace(config, lora=None), merge(base, adapters, config.lora))
        assert np.abs(ours - plain).max() > 0.05 * np.abs(plain).max()
        assert_near(logits_of(merged, TOKENS), ours)

    def test_only_named_projections_have_adapters(self, one_device_mesh):
        config = adapted("llama", ("query", "down"))
        adapters = random_adapters(config, one_device_mesh, jax.random.key(0))
        assert {path.split("/")[2] for path in flatten_params(adapters)} == {"query", "down"}
        assert num_trained(config) == sum(leaf.size for leaf in jax.tree.leaves(adapters))
        assert num_parameters(config) == num_trained(config) + num_parameters(
            dataclasses.replace(config, lora=None)
        )

    def test_the_rank_axis_is_whole_and_the_others_are_spread(self):
        mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
        specs = {p: s.spec for p, s in flatten_params(adapter_shardings(adapted("llama"), mesh)).items()}
        assert specs["layers/attention/query/lora/a"] == P(None, "fsdp", None)
        assert specs["layers/attention/query/lora/b"] == P(None, None, "tensor", None)
        assert specs["layers/mlp/down/lora/a"] == P(None, "tensor", None)
        assert specs["layers/mlp/down/lora/b"] == P(None, None, "fsdp")

    def test_frozen_weights_cost_no_gradient(self):
        config, size = adapted("llama"), batches_of().size(1)
        full = training_flops(dataclasses.replace(config, lora=None), size)
        assert training_flops(config, size) == pytest.approx(
            full * 2 / 3 + 6 * num_trained(config) * size.tokens
        )


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


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"projections": ("query", "valu")}, "no projection 'valu'; did you mean 'value'"),
            ({"projections": ()}, r"projections=\(\): must be projections of a layer, or all"),
            ({"rank": -1}, r"target.lora.rank=-1: must be 0 or above"),
            ({"alpha": 0.0}, "target.lora.alpha=0.0: must be above 0"),
            ({"dropout": 1.0}, "target.lora.dropout=1.0: must be at least 0 and below 1"),
            ({"export": "peft"}, "target.lora.export='peft': must be one of merged, adapter"),
        ],
    )
    def test_bad_settings_are_refused(self, fields, message):
        config = default()
        config.target.lora.rank = 4
        config.target.lora.update(fields)
        with pytest.raises(InputError, match=message):
            validate(config)

    def test_an_adapter_of_random_weights_is_refused(self):
        config = default()
        config.target.update(init="random", model_config="config.json")
        config.target.lora.update(rank=4, export="adapter")
        with pytest.raises(InputError, match="keeps none"):
            validate(config)
        config.target.lora.export = "merged"
        validate(config)


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
