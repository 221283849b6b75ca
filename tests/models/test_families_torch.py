"""Every model family against transformers itself: fresh weights in, padded batches, and exports out."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from s2l_jax.data.packing import fill, lay_out
from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.models import hf
from s2l_jax.models.parameters import bind, model_params
from s2l_jax.parallel.placement import load_model
from s2l_jax.training.loss import example_mean, training_loss
from tests.support.paths import GOLDEN

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VARIANTS = sorted(path.parent.name for path in GOLDEN.glob("*/golden.npz"))
TIED = ["gemma", "gpt2", "llama_linear_tied", "qwen2", "qwen3"]
LENGTHS = (13, 24, 4)  # tokens of each example
NEW_TOKENS = 8
TOLERANCE = 2e-5  # of the largest logit

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*dropout"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def make_golden():
    """The script that writes the golden files."""
    return importlib.import_module("tests.golden.make_golden")


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def theirs(variant, make_golden):
    """A model of transformers that no golden file has."""
    torch.manual_seed(1000 + VARIANTS.index(variant))
    return make_golden.make_model(make_golden.VARIANTS[variant])


@pytest.fixture(scope="module")
def directory(theirs, tmp_path_factory):
    """Where transformers saved it, in several shards."""
    path = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(path, max_shard_size="20KB")
    assert len(list(path.glob("model-*.safetensors"))) > 2
    return path


@pytest.fixture(scope="module")
def ours(directory, one_device_mesh):
    return load_model(str(directory), one_device_mesh)


@pytest.fixture(scope="module")
def examples(theirs):
    rng = np.random.default_rng(7)
    return [rng.integers(theirs.config.vocab_size, size=length).astype(np.int32) for length in LENGTHS]


@jax.jit
def _forward(model, tokens, positions, segments):
    return model.logits(model(tokens, positions, segments))


def padded(examples, side):
    """Token ids and attention mask of a batch, padded on one side."""
    width = max(map(len, examples))
    tokens, mask = (np.zeros((len(examples), width), np.int64) for _ in range(2))
    for row, example in enumerate(examples):
        span = slice(len(example)) if side == "right" else slice(width - len(example), width)
        tokens[row, span], mask[row, span] = example, 1
    return tokens, mask


def our_logits(model, examples):
    tokens, mask = padded(examples, "right")
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    out = np.asarray(_forward(model, tokens, positions, mask))[..., : model.config.vocab_size]
    return [row[: len(example)] for row, example in zip(out, examples, strict=True)]


def their_logits(model, examples, side="right"):
    tokens, mask = (torch.from_numpy(x) for x in padded(examples, side))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        out = model(tokens, attention_mask=mask, position_ids=positions).logits.numpy()
    return [row[used] for row, used in zip(out, mask.numpy() > 0, strict=True)]


def assert_near(ours, theirs):
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=TOLERANCE * np.abs(right).max())


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_equal_those_of_a_padded_batch(side, ours, theirs, examples):
    assert_near(our_logits(ours, examples), their_logits(theirs, examples, side))


def test_greedy_answers_equal_those_of_a_padded_batch(ours, theirs, examples, one_device_mesh):
    theirs.generation_config.eos_token_id = None
    tokens, mask = (torch.from_numpy(x) for x in padded(examples, "left"))
    out = theirs.generate(
        tokens,
        attention_mask=mask,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.logits, dim=1).topk(2).values  # [examples, NEW_TOKENS, 2]
    close = (best[..., 0] - best[..., 1]).numpy() < 1e-3
    answers = generate(
        ours,
        [example.tolist() for example in examples],
        max_new_tokens=NEW_TOKENS,
        end_tokens=[],
        mesh=one_device_mesh,
    )
    compared = 0
    for answer, sequence, doubtful in zip(answers, out.sequences.numpy(), close, strict=True):
        # From the first near tie on, rounding decides.
        certain = int(doubtful.argmax()) if doubtful.any() else NEW_TOKENS
        assert answer[:certain] == sequence[tokens.shape[1] :][:certain].tolist()
        compared += certain
    assert compared > 2 * NEW_TOKENS


def test_transformers_loads_an_export_and_has_our_logits(ours, directory, examples, tmp_path):
    changed = jax.tree.map(lambda p: 1.05 * p + 0.01, model_params(ours))
    hf.save_model(tmp_path, changed, ours.config, hf.read_config(directory), dtype=jnp.float32)
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.dtype == torch.float32
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    exported = our_logits(bind(ours.config, changed), examples)
    assert_near(exported, their_logits(loaded.eval(), examples))
    assert np.abs(exported[0] - our_logits(ours, examples)[0]).max() > 0.01


def test_transformers_loads_an_export_in_the_hub_s_spelling(variant, one_device_mesh, examples, tmp_path):
    model = load_model(str(GOLDEN / variant), one_device_mesh)
    hub = hf.read_config(GOLDEN / variant / "config_hub.json")
    hf.save_model(tmp_path, model_params(model), model.config, hub, dtype=jnp.float32)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.dtype == torch.float32
    assert_near(our_logits(model, examples), their_logits(loaded, examples))


@pytest.mark.parametrize("name", TIED)
def test_weights_of_the_model_without_its_head_load(name, make_golden, one_device_mesh, tmp_path):
    theirs = make_golden.make_model(make_golden.VARIANTS[name])
    theirs.base_model.save_pretrained(tmp_path)
    ours = load_model(str(tmp_path), one_device_mesh)
    examples = [np.arange(9, dtype=np.int32)]
    assert_near(our_logits(ours, examples), their_logits(theirs, examples))


@pytest.mark.parametrize("name", ["gemma", "gpt2", "llama", "phi"])
def test_bfloat16_rounds_no_worse_than_pytorch(name, one_device_mesh):
    path = str(GOLDEN / name)
    exact = load_model(path, one_device_mesh)
    examples = [np.random.default_rng(3).integers(1, 60, 24).astype(np.int32)]
    (truth,) = our_logits(exact, examples)
    (ours,) = our_logits(load_model(path, one_device_mesh, dtype=jnp.bfloat16), examples)
    half = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    tokens = torch.from_numpy(examples[0]).long()
    with torch.no_grad():
        theirs = half(tokens[None]).logits[0].float().numpy()
    rounding = np.sqrt(np.mean((theirs - truth) ** 2))
    assert 0 < np.sqrt(np.mean((ours - truth) ** 2)) < 1.5 * rounding < 0.1 * truth.std()


@pytest.mark.parametrize("name", ["gemma", "gpt2", "mistral", "phi3"])
def test_gradients_equal_pytorch(name, make_golden, one_device_mesh, tmp_path):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / name)
    # Without token 2 or 0: PyTorch keeps the embedding of a padding token as it is.
    tokens = np.random.default_rng(5).integers(3, 60, 20).astype(np.int32)
    want = make_golden.gradients(theirs, torch.from_numpy(tokens).long())
    model = load_model(str(GOLDEN / name), one_device_mesh)
    prompt, length = make_golden.PROMPT, len(tokens)
    layout = lay_out(np.array([length]), np.array([length - prompt]), 24, microbatches=1, groups=1)
    packed, _ = fill(
        layout, layout.shape, 24, {0: (tokens, np.arange(prompt, length))}, np.ones(1, np.float32), range(1)
    )
    rows = jax.tree.map(lambda x: x[0], packed)

    @jax.jit
    @jax.grad
    def gradient(params):
        weights = example_mean(rows)
        return training_loss(model.config, params, rows, weights, dtype=jnp.float32)[0]

    # Written as if they were weights, they get the names and layouts of the checkpoint's tensors.
    hf_config = hf.read_config(GOLDEN / name)
    hf.save_model(tmp_path, gradient(model_params(model)), model.config, hf_config, dtype=jnp.float32)
    ours = load_file(tmp_path / "model.safetensors")
    assert ours.keys() == want.keys()
    largest = max(np.abs(tensor).max() for tensor in want.values())
    for tensor in want:
        atol = TOLERANCE * np.abs(want[tensor]).max() + 1e-6 * largest
        np.testing.assert_allclose(ours[tensor], want[tensor], rtol=0, atol=atol, err_msg=tensor)
