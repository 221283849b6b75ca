"""Greedy generation equals asking for one token at a time; responses and losses are those of their rows."""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2l_jax.data.pool import PoolRow
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.evaluation import evaluate as evaluate_module
from s2l_jax.evaluation.evaluate import reference_losses
from s2l_jax.evaluation.generation import respond as respond_module
from s2l_jax.evaluation.generation.generate import generate
from s2l_jax.evaluation.generation.respond import respond
from s2l_jax.evaluation.generation.sampling import Sampling
from s2l_jax.models import hf
from s2l_jax.models.parameters import bind, model_params
from s2l_jax.parallel.placement import load_model, random_params
from s2l_jax.trajectories.sweep import example_losses
from tests.support.paths import GOLDEN

GPT_NEOX = GOLDEN / "gpt_neox"
NEW = 10  # tokens
RNG = np.random.default_rng(5)
PROMPTS = [RNG.integers(1, 64, length).tolist() for length in (33, 1, 8, 40, 2, 31, 32)]

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model(one_device_mesh):
    return load_model(str(GPT_NEOX), one_device_mesh)


@jax.jit
def _logits(model, tokens):
    positions = jnp.arange(tokens.shape[1])[None]
    return model.logits(model(tokens, positions, jnp.ones_like(tokens)))[0]


@pytest.fixture(scope="module")
def endless(model):
    """Ten greedy tokens of each prompt, each from a forward pass over all before it."""
    answers = []
    for prompt in PROMPTS:
        tokens = list(prompt)
        for _ in range(NEW):
            row = np.array([tokens + [0] * (64 - len(tokens))])
            tokens.append(int(_logits(model, row)[len(tokens) - 1].argmax()))
        answers.append(tokens[len(prompt) :])
    return answers


@pytest.fixture(scope="module")
def end(endless):
    """A token that ends some answers in the middle, and not all at one place."""
    first = collections.defaultdict(set)
    for answer in endless:
        for token in set(answer):
            first[token].add(answer.index(token))
    return max(first, key=lambda token: (len(first[token]), token))


@pytest.fixture(scope="module")
def expected(endless, end):
    cut = [answer[: answer.index(end)] if end in answer else answer for answer in endless]
    assert len(set(map(len, cut))) > 2, "answers of different length"
    return cut


@pytest.mark.parametrize("batch_size", [3, 64])
def test_greedy_equals_a_loop_without_cache(batch_size, model, one_device_mesh, expected, end):
    seen = []
    answers = generate(
        model,
        PROMPTS,
        max_new_tokens=NEW,
        end_tokens=[end],
        mesh=one_device_mesh,
        batch_size=batch_size,
        progress=seen.append,
    )
    assert answers == expected
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_a_cube_of_devices_gives_the_same_answers(cube_mesh, expected, end):
    model = load_model(str(GPT_NEOX), cube_mesh)
    answers = generate(model, PROMPTS, max_new_tokens=NEW, end_tokens=[end], mesh=cube_mesh)
    assert answers == expected


def test_answers_end_at_the_limit(model, one_device_mesh, endless):
    short = [answer[:2] for answer in endless[:2]]
    options = {"max_new_tokens": 2, "end_tokens": [64], "mesh": one_device_mesh}
    assert generate(model, PROMPTS[:2], **options) == short
    assert generate(model, [], **options) == []


def test_rows_that_finish_take_the_next_prompt(model, one_device_mesh):
    """Answers of very different length over few rows: refills, moves of the cache, and the same tokens."""
    prompts = [RNG.integers(1, 64, length).tolist() for length in (5, 60, 3, 33, 7, 2, 90, 4, 31, 12, 8)]
    options = {"max_new_tokens": 37, "mesh": one_device_mesh}
    whole = generate(model, prompts, end_tokens=[64], **options)
    assert [len(answer) for answer in whole] == [min(37, 128 - len(p)) for p in prompts], (
        "or the context's end"
    )
    ends = [answer[3 * number % len(answer)] for number, answer in enumerate(whole)][:2]
    cut = [_until(answer, ends) for answer in whole]
    assert len(set(map(len, cut))) > 4
    assert generate(model, prompts, end_tokens=ends, batch_size=3, **options) == cut


def test_a_model_of_one_layer_answers_too(one_device_mesh):
    config = dataclasses.replace(hf.load_config(GPT_NEOX), num_layers=1)
    model = bind(config, random_params(config, one_device_mesh, jax.random.key(0)))
    answers = generate(model, PROMPTS[:2], max_new_tokens=4, end_tokens=[], mesh=one_device_mesh)
    for prompt, answer in zip(PROMPTS, answers, strict=False):
        row = np.array([prompt + answer])
        expected = np.asarray(_logits(model, row))[len(prompt) - 1 : -1].argmax(axis=1)
        assert answer == expected.tolist()


def _until(answer, ends):
    return answer[: min([answer.index(end) for end in ends if end in answer], default=len(answer))]


def test_samples_do_not_depend_on_the_batch(model, one_device_mesh, cube_mesh, endless):
    options = {"max_new_tokens": 6, "end_tokens": [64], "sampling": Sampling(2.0, top_k=20, seed=3)}
    answers = generate(model, PROMPTS, mesh=one_device_mesh, **options)
    assert answers != [answer[:6] for answer in endless]
    assert generate(model, PROMPTS, mesh=one_device_mesh, batch_size=2, **options) == answers
    sharded = load_model(str(GPT_NEOX), cube_mesh)
    assert generate(sharded, PROMPTS, mesh=cube_mesh, **options) == answers
    options["sampling"] = Sampling(2.0, top_k=20, seed=4)
    assert generate(model, PROMPTS, mesh=one_device_mesh, **options) != answers


def test_an_answer_can_be_stopped_from_outside(model, one_device_mesh):
    long = generate(model, PROMPTS, max_new_tokens=50, end_tokens=[64], mesh=one_device_mesh)
    stopped = generate(
        model,
        PROMPTS,
        max_new_tokens=50,
        end_tokens=[64],
        mesh=one_device_mesh,
        batch_size=3,
        stops=lambda answer: len(answer) >= 5 and answer[4] % 2 == 0,
    )
    assert any(answer[4] % 2 for answer in long)
    assert any(answer[4] % 2 == 0 for answer in long)
    for whole, answer in zip(long, stopped, strict=True):
        assert answer == whole[: len(answer)]
        assert 5 <= len(answer) < 25 if whole[4] % 2 == 0 else len(answer) == 50


@pytest.mark.parametrize("length", [0, 128, 200])
def test_a_prompt_without_room_is_refused(length, model, one_device_mesh):
    prompts = [[1, 2], [3] * length]
    with pytest.raises(InputError, match=f"prompt 1 has {length} tokens; the model's context is 128"):
        generate(model, prompts, max_new_tokens=2, end_tokens=[64], mesh=one_device_mesh)


@pytest.mark.parametrize("token", [-1, 64, 100, 200])
def test_a_token_that_the_model_lacks_is_refused(token, model, one_device_mesh):
    with pytest.raises(InputError, match=f"prompt 1 has the token {token}; the model's vocabulary is 64"):
        generate(model, [[1], [2, token]], max_new_tokens=2, end_tokens=[], mesh=one_device_mesh)


@pytest.mark.parametrize("field", ["max_new_tokens", "batch_size"])
def test_numbers_without_sense_are_refused(field, model, one_device_mesh):
    options = {"max_new_tokens": 2, "batch_size": 2} | {field: 0}
    with pytest.raises(InputError, match=f"{field}=0: must be 1 or above"):
        generate(model, [[1]], end_tokens=[], mesh=one_device_mesh, **options)


def test_products_of_a_float32_model_are_not_rounded(model):
    row = np.ones((1, 8), np.int32)

    def precisions(model):
        text = str(jax.make_jaxpr(lambda m: m.logits(m(row, row, row)))(model))
        assert "dot_general" in text
        return set(re.findall(r"precision=(\(.*?\)|\w+)", text))

    half = bind(model.config, jax.tree.map(lambda p: p.astype(jnp.bfloat16), model_params(model)))
    assert precisions(model) == {"(Precision.HIGHEST, Precision.HIGHEST)"}
    assert precisions(half) <= {"None"}


def test_stop_texts_end_answers(tiny, one_device_mesh, monkeypatch):
    model, tokenizer = tiny
    answers = {"copy": "one two END three", "add": "1 + 2 = 3", "long": "so <|end|> what"}

    def answer(model, prompts, *, stops, **options):
        tokens = [tokenizer(answers[row.source])["input_ids"] for row in ROWS]
        assert [stops(each) for each in tokens] == [True, False, False, True]
        assert not stops(tokens[0][:2])
        return tokens

    special = tokenizer.eos_token
    answers["long"] = f"so {special} what"
    monkeypatch.setattr(respond_module, "generate", answer)
    responses = respond(model, tokenizer, [[1]] * 4, stop=["END", special], mesh=one_device_mesh, **ANSWERING)
    assert responses == ["one two ", "1 + 2 = 3", "1 + 2 = 3", "so "]


def test_bfloat16_generates_alike(model, one_device_mesh, endless):
    answers = generate(
        model,
        PROMPTS,
        max_new_tokens=3,
        end_tokens=[64],
        mesh=one_device_mesh,
        dtype=jnp.bfloat16,
    )
    same = [ours[0] == theirs[0] for ours, theirs in zip(answers, endless, strict=True)]
    assert sum(same) >= 5


def test_transformers_generates_the_same(expected, end):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(GPT_NEOX)
    for prompt, answer in zip(PROMPTS, expected, strict=True):
        out = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=0,
        )
        generated = out[0, len(prompt) :].tolist()
        assert (generated[:-1] if generated[-1] == end else generated) == answer


def make_row(number, source, instruction, output):
    return PoolRow(number, instruction, "", output, source, {}, "")


ROWS = [
    make_row(11, "copy", "Copy: QXZ", "QXZ"),
    make_row(12, "add", "Add 1 and 2.", "1 + 2 = 3 #### 3"),
    make_row(13, "add", "Add 2 and 2.", "2 + 2 = 4 #### 4"),
    make_row(14, "long", "Say nothing. " * 60, "nothing"),
]
OPTIONS = {"template": "plain", "boundary": "separate", "max_length": 64, "dtype": jnp.float32}
ANSWERING = {"template": "plain", "max_new_tokens": 4, "batch_size": 2, "dtype": jnp.float32}


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint, one_device_mesh):
    return load_model(str(tiny_checkpoint), one_device_mesh), hf.load_tokenizer(tiny_checkpoint)


def test_losses_of_references(tiny, one_device_mesh):
    model, tokenizer = tiny
    losses = reference_losses(model, tokenizer, ROWS, mesh=one_device_mesh, **OPTIONS)
    want = example_losses(model, tokenizer, ROWS, prompt="plain", max_length=64)
    assert losses == [*want[:3].tolist(), None]
    assert reference_losses(model, tokenizer, ROWS[3:], mesh=one_device_mesh, **OPTIONS) == [None]


def test_a_loss_that_is_no_number_names_its_row(tiny, one_device_mesh, monkeypatch):
    losses = np.array([1.0, np.nan, 2.0, 0.0], np.float32)
    monkeypatch.setattr(evaluate_module, "tokenized_losses", lambda *_, **__: losses)
    with pytest.raises(DivergedError, match=rf"row {ROWS[1].id}: its loss is nan, and 1 of 4"):
        reference_losses(*tiny, ROWS, mesh=one_device_mesh, **OPTIONS)


def test_responses_are_text(tiny, one_device_mesh):
    model, tokenizer = tiny
    seen = []
    prompts = tokenizer([f"{row.instruction}\n" for row in ROWS[:3]])["input_ids"]
    responses = respond(model, tokenizer, prompts, mesh=one_device_mesh, progress=seen.append, **ANSWERING)
    assert seen == [1, 2, 3]
    raw = generate(
        model,
        prompts,
        max_new_tokens=4,
        end_tokens=[tokenizer.eos_token_id],
        mesh=one_device_mesh,
        batch_size=2,
    )
    assert responses == tokenizer.batch_decode(raw, skip_special_tokens=True)


def test_a_tokenizer_of_another_model_is_refused(tiny, model, one_device_mesh):
    with pytest.raises(InputError, match=r"tokeniser has \d+ tokens, .* vocabulary 64"):
        respond(model, tiny[1], [[1]], mesh=one_device_mesh, **ANSWERING)
    with pytest.raises(InputError, match=r"tokeniser has \d+ tokens, .* vocabulary 64"):
        reference_losses(model, tiny[1], ROWS, mesh=one_device_mesh, **OPTIONS)


def test_sampled_answers_belong_to_a_prompts_number(model, one_device_mesh):
    """Asked in two parts, as after a kill, the prompts get the answers they would have had together."""
    options = {
        "max_new_tokens": 5,
        "end_tokens": [64],
        "mesh": one_device_mesh,
        "sampling": Sampling(temperature=2.0, seed=3),
    }
    whole = generate(model, PROMPTS[:4], **options)
    assert generate(model, PROMPTS[2:4], indices=[2, 3], **options) == whole[2:]
    assert generate(model, PROMPTS[2:4], **options) != whole[2:]
