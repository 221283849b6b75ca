"""Losses and training steps equal PyTorch's on a checkpoint that transformers wrote."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.data.batching import Batches
from s2l_jax.data.pool import read_rows
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, tokenize
from s2l_jax.models import hf
from s2l_jax.models.parameters import flatten_params, model_params, nest_params
from s2l_jax.parallel.placement import load_model
from s2l_jax.parallel.sharding import put_rows
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import init_state, make_train_step
from s2l_jax.trajectories.packed_dataset import PackedDataset
from s2l_jax.trajectories.sweep import example_losses, make_sweep
from tests.support.compilation import quickly_compiled
from tests.support.paths import GOLDEN

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 128  # tokens
STEPS, BATCH = 20, 8
FEW = 48  # rows that show a mutation
SETTINGS = OptimizerSettings(learning_rate=1e-3, warmup_fraction=0.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small GPT-NeoX with noise on every tensor, so that no part of it can be lost unseen."""
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=520,  # above the tokeniser's 512, and no multiple of the padding
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=6,
            intermediate_size=192,
            rotary_pct=0.25,
            max_position_embeddings=512,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("neox")
    model.save_pretrained(path)
    hf.load_tokenizer(GOLDEN / "tokenizer").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def rows_and_examples(checkpoint):
    """200 rows with a response left at LENGTH: PyTorch's mean over no token is NaN."""
    rows = list(read_rows(GOLDEN / "rows.jsonl"))
    tokenizer = hf.load_tokenizer(checkpoint)
    examples = tokenize(tokenizer, [render("alpaca", row) for row in rows], max_length=LENGTH)
    both = zip(rows, examples, strict=True)
    return [(row, example) for row, example in both if example.prompt_length < LENGTH][:200]


@pytest.fixture(scope="module")
def rows(rows_and_examples):
    return [row for row, _ in rows_and_examples]


@pytest.fixture(scope="module")
def examples(rows_and_examples):
    return [example for _, example in rows_and_examples]


@pytest.fixture(scope="module")
def torch_losses(checkpoint, examples):
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        losses = [
            loss
            for start in range(0, len(examples), 10)
            for loss in example_means(*token_losses(model, examples[start : start + 10]))
        ]
        whole = [float(hf_loss(model, [example])) for example in examples[:5]]
    np.testing.assert_allclose(losses[:5], whole, rtol=1e-6)
    return np.array(losses)


def example_means(losses, rows):
    return (torch.bincount(rows, losses) / torch.bincount(rows)).tolist()


def pad(batch):
    """Token ids, labels and attention mask of a padded batch."""
    longest = max(len(e.tokens) for e in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), -100)
    attention = torch.zeros(len(batch), longest, dtype=torch.long)
    for i, example in enumerate(batch):
        n = len(example.tokens)
        ids[i, :n] = torch.tensor(example.tokens)
        labels[i, example.prompt_length : n] = ids[i, example.prompt_length : n]
        attention[i, :n] = 1
    return ids, labels, attention


def hf_loss(model, batch):
    """Mean cross-entropy over the response tokens of a padded batch, as the HF Trainer has it."""
    ids, labels, attention = pad(batch)
    return model(input_ids=ids, attention_mask=attention, labels=labels).loss


def token_losses(model, batch):
    """Cross-entropy of each response token of a padded batch, and the row it is in.

    Logits of prompts and padding, which take most of the time of `hf_loss`, are left out.
    """
    ids, labels, attention = pad(batch)
    hidden = model.gpt_neox(input_ids=ids, attention_mask=attention).last_hidden_state
    needed = labels[:, 1:] != -100
    logits = model.get_output_embeddings()(hidden[:, :-1][needed])
    losses = torch.nn.functional.cross_entropy(logits, labels[:, 1:][needed], reduction="none")
    return losses, needed.nonzero()[:, 0]


def test_example_losses_equal_pytorch(checkpoint, rows, torch_losses, one_device_mesh):
    assert len(rows) == 200
    model = load_model(str(checkpoint), one_device_mesh)
    tokenizer = hf.load_tokenizer(checkpoint)
    ours = example_losses(model, tokenizer, rows, max_length=LENGTH, batch_tokens=4096)
    np.testing.assert_allclose(ours, torch_losses, atol=1e-4)
    assert torch_losses.std() > 0.1


def test_losses_of_the_official_boundary_equal_the_official_code(checkpoint, rows, one_device_mesh):
    """Its labels: both tokenised as one text, and as many tokens masked as the prompt alone has."""
    model, tokenizer = load_model(str(checkpoint), one_device_mesh), hf.load_tokenizer(checkpoint)
    reference = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    theirs = []
    for prompt, response in (render("alpaca", row) for row in rows[:40]):
        ids = torch.tensor([tokenizer(prompt + response + tokenizer.eos_token)["input_ids"][:LENGTH]])
        labels = ids.clone()
        labels[:, : len(tokenizer(prompt)["input_ids"])] = -100
        with torch.no_grad():
            theirs.append(float(reference(input_ids=ids, labels=labels).loss))
    options = {"max_length": LENGTH, "batch_tokens": 4096}
    ours = example_losses(model, tokenizer, rows[:40], boundary="official", **options)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    apart = example_losses(model, tokenizer, rows[:40], **options)
    merged = np.array([row.output.startswith("-") for row in rows[:40]])
    assert 0 < merged.sum() < 40
    assert (np.abs(apart - ours) > 1e-3).tolist() == merged.tolist()


def _without(path):
    def mutate(config, params):
        flat = flatten_params(params)
        return config, nest_params(flat | {path: jnp.zeros_like(flat[path])})

    return mutate


def _swapped_norms(config, params):
    layers = params["layers"]
    swapped = {"attention_norm": layers["mlp_norm"], "mlp_norm": layers["attention_norm"]}
    return config, params | {"layers": layers | swapped}


def _setting(**changes):
    return lambda config, params: (dataclasses.replace(config, **changes), params)


BIASES = [
    "layers/attention/query/bias",
    "layers/attention/key/bias",
    "layers/attention/value/bias",
    "layers/attention/out/bias",
    "layers/mlp/up/bias",
    "layers/mlp/down/bias",
    "layers/attention_norm/bias",
    "layers/mlp_norm/bias",
    "final_norm/bias",
]
MUTATIONS = {f"{path} dropped": _without(path) for path in BIASES} | {
    "norms swapped": _swapped_norms,
    "tanh approximation of gelu": _setting(activation="gelu_new"),
    "all 16 dimensions rotated, not 4": _setting(rotary_dim=16),
    "2 dimensions rotated, not 4": _setting(rotary_dim=2),
    "sequential residual": _setting(parallel_residual=False),
    "rotary base 500": _setting(rope_theta=500.0),
}


@pytest.fixture(scope="module")
def some_losses(examples, one_device_mesh):
    """Losses of the first rows under some settings and parameters; a program per settings."""
    tracked = PackedDataset(
        TokenizedList(examples),
        np.arange(FEW),
        one_device_mesh,
        max_length=LENGTH,
        batch_tokens=4096,
        pinned_bytes=2**30,
    )
    sweep = functools.lru_cache(lambda config: make_sweep(config, tracked, one_device_mesh))
    return lambda config, params: np.asarray(sweep(config)(params))


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_model_is_caught_by_the_losses(
    name, checkpoint, some_losses, torch_losses, one_device_mesh
):
    model = load_model(str(checkpoint), one_device_mesh)
    mutated = some_losses(*MUTATIONS[name](model.config, model_params(model)))
    assert np.abs(mutated - torch_losses[:FEW]).max() > 2e-4


@pytest.fixture(scope="module")
def torch_run(checkpoint, examples):
    """Losses and final weights of 20 padded steps in PyTorch, AdamW, clipping, cosine decay."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).train()
    adamw = torch.optim.AdamW(
        model.parameters(), lr=SETTINGS.learning_rate, betas=(0.9, 0.999), weight_decay=0.0
    )
    decay = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: 0.5 * (1 + np.cos(np.pi * step / STEPS)))
    losses, norms = [], []
    batches = make_batches(examples)
    first = [examples[i] for i in batches.read(0).examples]
    torch.testing.assert_close(token_losses(model, first)[0].mean(), hf_loss(model, first))
    for step in range(STEPS):
        loss = token_losses(model, [examples[i] for i in batches.read(step).examples])[0].mean()
        adamw.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        adamw.step()
        decay.step()
        losses.append(float(loss.detach()))
    assert min(norms) > 1.0, "clipping must have something to do"
    return np.array(losses), {k: v.detach().numpy() for k, v in model.state_dict().items()}


def make_batches(examples, **options):
    subset = np.arange(len(examples))
    return Batches(
        TokenizedList(examples),
        subset,
        np.ones(len(subset), np.float32),
        batch_size=BATCH,
        num_steps=STEPS,
        seed=3,
        max_length=LENGTH,
        **options,
    )


def our_run(checkpoint, examples, mesh, settings=SETTINGS, loss="token", steps=STEPS):
    model = load_model(str(checkpoint), mesh)
    config, params = model.config, model_params(model)
    state = init_state(config, settings, STEPS, mesh, params)
    step_fn = make_train_step(config, settings, STEPS, mesh, loss=loss)
    batches, losses = make_batches(examples), []
    for step in range(steps):
        state, metrics = step_fn(state, put_rows(mesh, batches.read(step).rows, axis=1))
        losses.append(float(metrics.loss))
    return np.array(losses), state.params, config


def test_twenty_packed_steps_equal_padded_pytorch(checkpoint, examples, torch_run, one_device_mesh, tmp_path):
    losses, params, config = our_run(checkpoint, examples, one_device_mesh)
    np.testing.assert_allclose(losses, torch_run[0], atol=1e-4)
    assert losses[0] - losses[-1] > 0.3, "twenty steps at this rate must move the loss"
    hf_config = json.loads((checkpoint / "config.json").read_text())
    hf.save_model(tmp_path / "ours", params, config, hf_config, dtype=jnp.float32)
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").state_dict()
    start = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    for name, theirs in torch_run[1].items():
        mine, moved = ours[name].numpy(), np.abs(theirs - start[name].numpy()).max()
        if name.endswith("query_key_value.bias"):
            # A key bias on unrotated dimensions changes no attention weight: its gradient is rounding
            # noise, which Adam scales up to full steps. Queries and values are compared.
            mine, theirs = (x.reshape(6, 3, 16)[:, [0, 2]] for x in (mine, theirs))
        assert moved > 5e-3, name
        np.testing.assert_allclose(mine, theirs, atol=5e-4, err_msg=name)


@pytest.fixture
def compiled_quickly():
    with quickly_compiled():
        yield


@pytest.mark.parametrize(
    ("what", "changes", "loss"),
    [
        ("no clipping", {"clip_norm": 0.0}, "token"),
        ("mean over examples", {}, "example"),
        ("warm-up", {"warmup_fraction": 0.2}, "token"),
        ("beta2 of 0.95", {"beta2": 0.95}, "token"),
    ],
)
def test_a_mutated_step_is_caught_by_the_loss_curve(
    what, changes, loss, checkpoint, examples, torch_run, one_device_mesh, compiled_quickly
):
    settings = dataclasses.replace(SETTINGS, **changes)
    losses, _, _ = our_run(checkpoint, examples, one_device_mesh, settings, loss, steps=7)
    assert np.abs(losses - torch_run[0][:7]).max() > 5e-4, what


def test_bfloat16_losses_are_near(checkpoint, rows, torch_losses, one_device_mesh):
    model = load_model(str(checkpoint), one_device_mesh)
    ours = example_losses(
        model, hf.load_tokenizer(checkpoint), rows[:FEW], max_length=LENGTH, dtype=jnp.bfloat16
    )
    np.testing.assert_allclose(ours, torch_losses[:FEW], rtol=2e-2)
    assert np.abs(ours - torch_losses[:FEW]).max() > 1e-4, "it is another precision"
    assert jax.tree.leaves(model_params(model))[0].dtype == jnp.float32
