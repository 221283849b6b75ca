"""Every model family equals PyTorch: logits, gradients, greedy answers, and weights in and out.

tests/golden/<variant> holds a tiny checkpoint that transformers wrote and what PyTorch makes of it;
tests/golden/make_golden.py says how they came about. No PyTorch is needed here.
"""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from s2l_jax.data.packing import fill, lay_out
from s2l_jax.data.responses import loss_places
from s2l_jax.errors import InputError
from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.models import hf
from s2l_jax.models.architecture import RopeScaling
from s2l_jax.models.parameters import bind, flatten_params, model_params, nest_params
from s2l_jax.models.weights import INDEX
from s2l_jax.parallel.placement import load_model
from s2l_jax.training.loss import example_mean, training_loss
from tests.support.paths import GOLDEN

WEIGHTS = "model.safetensors"
VARIANTS = sorted(path.parent.name for path in GOLDEN.glob("*/golden.npz"))
FAMILIES = {"gemma", "gpt2", "gpt_neox", "llama", "mistral", "phi", "phi3", "qwen2", "qwen3"}
# All that differ in how they generate; the others are compared live, where PyTorch is.
GENERATING = [v for v in VARIANTS if v not in ("gpt_neox_sequential", "llama_biases", "llama_linear_tied")]
WITH_GRADIENTS = ["gpt_neox", "llama"]
ROW = 40  # tokens of a row; holds all three examples
PROMPT = 6  # tokens of the last example that its loss leaves out
TOLERANCE = 2e-5  # of the largest value; 2e-4 would pass one GELU for the other

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:.*dropout"),  # GPT-2 and Phi-2 name some
    pytest.mark.filterwarnings("error:.*not known"),  # no field of these configs is unknown
]


@functools.cache
def arrays(variant):
    """What PyTorch makes of a variant."""
    return dict(np.load(GOLDEN / variant / "golden.npz"))


def examples_of(variant):
    """Tokens and PyTorch's logits of each example."""
    return [(arrays(variant)[f"tokens_{i}"], arrays(variant)[f"logits_{i}"]) for i in range(3)]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def load(one_device_mesh):
    """The model of a directory, on one device."""
    return lambda path, **options: load_model(str(path), one_device_mesh, **options)


@pytest.fixture(scope="module")
def model(variant, load):
    return load(GOLDEN / variant)


@jax.jit
def _forward(model, tokens, positions, segments):
    return model.padded_logits(model(tokens, positions, segments))


def rows_of(examples):
    """A padded batch of one example a row, and below it one row that holds them all."""
    tokens, positions, segments = (np.zeros((len(examples) + 1, ROW), np.int32) for _ in range(3))
    at = 0
    for number, example in enumerate(examples):
        here = np.arange(len(example))
        for row, start, segment in ((number, 0, 1), (-1, at, number + 1)):
            span = slice(start, start + len(example))
            tokens[row, span], positions[row, span], segments[row, span] = example, here, segment
        at += len(example)
    return tokens, positions, segments


def logits_of(model, examples):
    """Logits of each example in a row of its own, and of each in the row it shares with the others."""
    out = np.asarray(_forward(model, *rows_of(examples)))[..., : model.config.vocab_size]
    shared = np.split(out[-1], np.cumsum([len(example) for example in examples]))
    alone = [row[: len(example)] for row, example in zip(out, examples, strict=False)]
    return alone, shared[:-1]


def error_of(ours, theirs):
    """Largest difference as a share of the largest value."""
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def assert_near(ours, theirs, what=""):
    assert error_of(np.asarray(ours), theirs) < TOLERANCE, what


def test_every_family_has_golden_files():
    kinds = {json.loads((GOLDEN / v / "config.json").read_text())["model_type"] for v in VARIANTS}
    assert kinds == FAMILIES
    assert sum(f.stat().st_size for f in GOLDEN.rglob("*") if f.is_file()) < 2_500_000


def test_padded_and_packed_rows_equal_pytorch(variant, model):
    golden = examples_of(variant)
    alone, shared = logits_of(model, [tokens for tokens, _ in golden])
    for (_, theirs), row, part in zip(golden, alone, shared, strict=True):
        assert_near(row, theirs, "padded row")
        assert_near(part, theirs, "packed row")


def test_a_row_without_padding_equals_pytorch(variant, model):
    tokens, theirs = examples_of(variant)[2]
    row = tokens[None], np.arange(len(tokens), dtype=np.int32)[None], np.ones((1, len(tokens)), np.int32)
    ours = np.asarray(_forward(model, *row))[0]
    vocabulary = theirs.shape[1]
    assert_near(ours[:, :vocabulary], theirs)
    assert ours.shape[1] > vocabulary, "the embedding is padded in memory"
    assert (ours[:, vocabulary:] == -np.inf).all(), "the padding has no probability"


def test_hub_spelling_of_the_config_says_the_same(variant, model, tmp_path):
    shutil.copy(GOLDEN / variant / "config_hub.json", tmp_path / "config.json")
    newer, older = (json.loads((GOLDEN / variant / f"config{s}.json").read_text()) for s in ("", "_hub"))
    assert "rope_parameters" not in older
    assert newer.keys() - older.keys()
    assert hf.load_config(tmp_path) == model.config


def assert_greedy_answers(variant, model, mesh, **options):
    golden = arrays(variant)
    prompts, answers = ([golden[f"{k}_{i}"].tolist() for i in range(3)] for k in ("prompt", "answer"))
    new = len(answers[0])
    assert generate(model, prompts, max_new_tokens=new, end_tokens=[], mesh=mesh, **options) == answers


@pytest.mark.parametrize("variant", GENERATING, scope="module")
def test_greedy_answers_equal_pytorch(variant, model, one_device_mesh):
    assert_greedy_answers(variant, model, one_device_mesh)


@pytest.mark.parametrize("variant", ["gpt2", "mistral"])
def test_a_refilled_row_answers_the_same(variant, load, one_device_mesh):
    assert_greedy_answers(variant, load(GOLDEN / variant), one_device_mesh, batch_size=1)


def saved(model, source, out, dtype):
    """The tensors of a model that was loaded from `source`, written to `out`."""
    hf.save_model(out, model_params(model), model.config, hf.read_config(source), dtype=dtype)
    return load_file(out / WEIGHTS)


def assert_same_bits(before, after):
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert after[name].shape == tensor.shape
        assert after[name].tobytes() == tensor.tobytes(), name


def test_round_trip_keeps_every_bit(variant, model, tmp_path):
    before = load_file(GOLDEN / variant / WEIGHTS)
    assert_same_bits(before, saved(model, GOLDEN / variant, tmp_path, jnp.float32))
    assert hf.load_config(tmp_path) == model.config
    written, config = hf.read_config(tmp_path), hf.read_config(GOLDEN / variant)
    assert written == config, "transformers' own spelling is kept"


def test_bfloat16_round_trip_keeps_every_bit(variant, load, tmp_path):
    shutil.copytree(GOLDEN / variant, tmp_path / "half")
    before = {k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(tmp_path / "half" / WEIGHTS).items()}
    save_file(before, tmp_path / "half" / WEIGHTS, metadata={"format": "pt"})
    for dtype in (jnp.bfloat16, jnp.float32):
        model = load(tmp_path / "half", dtype=dtype)
        assert {p.dtype for p in jax.tree.leaves(model_params(model))} == {jnp.dtype(dtype)}
        after = saved(model, tmp_path / "half", tmp_path / jnp.dtype(dtype).name, jnp.bfloat16)
        assert_same_bits(before, after)


@pytest.mark.parametrize("variant", ["gemma", "gpt2", "phi3"])
def test_a_cube_of_devices_holds_the_same_model(variant, cube_mesh, tmp_path):
    model = load_model(str(GOLDEN / variant), cube_mesh)
    golden = examples_of(variant)
    for row, (_, theirs) in zip(logits_of(model, [t for t, _ in golden])[0], golden, strict=True):
        assert_near(row, theirs)
    assert_same_bits(
        load_file(GOLDEN / variant / WEIGHTS), saved(model, GOLDEN / variant, tmp_path, jnp.float32)
    )


@pytest.mark.parametrize("variant", WITH_GRADIENTS)
def test_gradients_of_the_example_loss_equal_pytorch(variant, load, tmp_path):
    model, golden = load(GOLDEN / variant), arrays(variant)
    examples = {i: (golden[f"tokens_{i}"], (2, 1, PROMPT)[i]) for i in range(3)}
    lengths = np.array([len(tokens) for tokens, _ in examples.values()])
    responses = lengths - np.array([prompt for _, prompt in examples.values()])
    layout = lay_out(lengths, responses, ROW, microbatches=1, groups=1)
    texts = {i: (tokens, loss_places(len(tokens), prompt)) for i, (tokens, prompt) in examples.items()}
    packed, numbers = fill(layout, layout.shape, ROW, texts, np.ones(3, np.float32), range(1))
    assert layout.shape.rows == 1, "all share a row"
    rows = jax.tree.map(lambda x: x[0], packed)
    rows = rows._replace(weights=(numbers[0] == 2).astype(np.float32))  # the loss of the last one alone

    @jax.jit
    @jax.grad
    def gradient(params):
        weights = example_mean(rows)
        return training_loss(model.config, params, rows, weights, dtype=jnp.float32)[0]

    # Written as if they were weights, they get the names and layouts of the checkpoint's tensors.
    gradients = bind(model.config, gradient(model_params(model)))
    ours = saved(gradients, GOLDEN / variant, tmp_path, jnp.float32)
    theirs = {k.removeprefix("gradient/"): v for k, v in golden.items() if k.startswith("gradient/")}
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(tensor).max() for tensor in theirs.values())
    for name, tensor in theirs.items():
        assert np.abs(tensor).max() > 1e-3 * largest, name
        difference = np.abs(ours[name] - tensor).max()
        assert difference < TOLERANCE * np.abs(tensor).max() + 1e-6 * largest, name


def swap_kv_heads(config, flat):
    """Query heads read each other's keys and values."""
    for name in ("key", "value"):
        path = f"layers/attention/{name}/kernel"
        flat[path] = flat[path][:, :, ::-1]
    return config, flat


def interleave_queries(config, flat):
    """Query heads are dealt out to key heads in turn, not in blocks."""
    for path in ("layers/attention/query/kernel", "layers/attention/out/kernel"):
        axis = 2 if "query" in path else 1
        groups = config.num_heads // config.num_kv_heads
        order = np.arange(config.num_heads).reshape(config.num_kv_heads, groups).T.reshape(-1)
        flat[path] = jnp.take(flat[path], order, axis=axis)
    return config, flat


def constant(path, value):
    """A parameter that is not read."""

    def change(config, flat):
        return config, flat | {path: jnp.full_like(flat[path], value)}

    return change


MUTATIONS = {
    "gpt_neox": [
        {"parallel_residual": False},
        {"rotary_dim": 2},
        {"rope_theta": 10000.0},
        {"activation": "relu"},
        constant("layers/attention/query/bias", 0.0),
        constant("layers/mlp_norm/bias", 0.0),
    ],
    "gpt_neox_sequential": [{"parallel_residual": True}, {"norm_eps": 1e-5}],
    "gpt2": [constant("embed_positions/embedding", 0.0), {"activation": "gelu"}],
    "phi": [swap_kv_heads, interleave_queries, constant("lm_head/bias", 0.0), {"rotary_dim": 4}],
    "phi3": [swap_kv_heads, interleave_queries, {"windows": ()}, {"rotary_dim": 8}],
    "llama": [swap_kv_heads, interleave_queries, {"norm_eps": 1e-6}],
    "llama_biases": [constant("layers/attention/out/bias", 0.0), constant("layers/mlp/gate/bias", 0.0)],
    "llama_linear_tied": [{"rope_scaling": None}],
    "llama3": [
        {"rope_scaling": None},
        {"rope_scaling": RopeScaling("linear", 8.0)},
        {"rope_scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 64)},
        {"rope_scaling": RopeScaling("llama3", 8.0, 1.0, 3.0, 32)},
    ],
    "mistral": [{"windows": ()}, {"windows": (7, 7)}, {"windows": (9, 9)}, swap_kv_heads],
    "qwen2": [{"windows": (4, 4)}, constant("layers/attention/key/bias", 0.0)],
    "qwen2_windows": [{"windows": (6, 6)}, {"windows": (6, 0)}, {"windows": ()}],
    "qwen3": [
        constant("layers/attention/query_norm/scale", 1.0),
        constant("layers/attention/key_norm/scale", 1.0),
    ],
    "qwen3_windows": [{"windows": (0, 6)}, constant("layers/attention/out/bias", 0.0)],
    "gemma": [{"norm_offset": 0.0}, {"embedding_multiplier": 1.0}, {"activation": "gelu"}],
}


@pytest.mark.parametrize(
    ("variant", "number"), [(v, n) for v, changes in MUTATIONS.items() for n in range(len(changes))]
)
def test_golden_logits_notice_a_wrong_model(variant, number, load):
    right, change = load(GOLDEN / variant), MUTATIONS[variant][number]
    config, flat = right.config, flatten_params(model_params(right))
    if callable(change):
        config, flat = change(config, flat)
    else:
        assert all(getattr(config, field) != value for field, value in change.items())
        config = dataclasses.replace(config, **change)
    golden = examples_of(variant)
    alone, _ = logits_of(bind(config, nest_params(flat)), [tokens for tokens, _ in golden])
    wrong = max(error_of(row, theirs) for row, (_, theirs) in zip(alone, golden, strict=True))
    assert wrong > 5 * TOLERANCE, (change, wrong)


def gpt2_of_the_hub(tensors):
    """No prefix, and the causal masks of every layer."""
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(2):
        bare[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 64, 64), np.float32))
        bare[f"h.{layer}.attn.masked_bias"] = np.full((), -1e4, np.float32)
    return bare


def gpt_neox_of_the_hub(tensors):
    for layer in range(2):
        attention = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{attention}.bias"] = np.tril(np.ones((1, 1, 128, 128), np.bool_))
        tensors[f"{attention}.masked_bias"] = np.full((), -1e9, np.float32)
        tensors[f"{attention}.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    return tensors


def with_frequencies(tensors):
    for layer in range(2):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    return tensors


def with_a_copied_head(tensors):
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}


@pytest.mark.parametrize(
    ("variant", "change"),
    [
        ("gpt2", gpt2_of_the_hub),
        ("gpt_neox", gpt_neox_of_the_hub),
        ("llama", with_frequencies),
        ("mistral", with_frequencies),
        ("phi", with_frequencies),
        ("qwen2", with_a_copied_head),
        ("gemma", with_a_copied_head),
    ],
)
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_as_the_hub_has_them_are_the_same_model(shards, variant, change, load, tmp_path):
    shutil.copy(GOLDEN / variant / "config_hub.json", tmp_path / "config.json")
    tensors = change(load_file(GOLDEN / variant / WEIGHTS))
    index = {}
    for number in range(shards):
        file = WEIGHTS if shards == 1 else f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        names = sorted(tensors)[number::shards]
        save_file({name: tensors[name] for name in names}, tmp_path / file)
        index |= dict.fromkeys(names, file)
    if shards > 1:
        (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    ours, theirs = (flatten_params(model_params(load(path))) for path in (tmp_path, GOLDEN / variant))
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)


def test_another_family_s_weights_are_refused(load, tmp_path):
    shutil.copytree(GOLDEN / "llama", tmp_path, dirs_exist_ok=True)
    shutil.copy(GOLDEN / "qwen2_windows" / WEIGHTS, tmp_path)
    with pytest.raises(InputError, match=r"self_attn\.q_proj\.bias is not part of a llama model"):
        load(tmp_path)
