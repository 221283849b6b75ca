"""Conversations of which every answer is learnt: which tokens have a loss, and which loss."""

import numpy as np
import pytest
from hypothesis import given, settings

from s2l_jax import example_losses, load_model
from s2l_jax.config import default, validate
from s2l_jax.data.batching import Batches, example_places, loss_token_counts
from s2l_jax.data.pool import row_of
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint, prepare
from s2l_jax.data.prompts import render
from s2l_jax.data.responses import Gaps, loss_places
from s2l_jax.data.tokens import TokenizedExample, TokenizedList, tokenize
from s2l_jax.errors import InputError
from s2l_jax.trajectories.sweep import tokenized_losses
from tests.data.test_chat import (
    KINDS,
    TOKENIZERS,
    changed,
    conversations,
    pieces_of,
    row_with,
    transformers,
)

TALK = [
    *[("user", "add 1 and 2"), ("assistant", "3")],
    *[("user", "and 4"), ("assistant", "it is 7")],
    *[("user", "so"), ("assistant", "7")],
]

SHORT = """\
{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<e>{% endfor %}\
{% if add_generation_prompt %}<a>{% endif %}"""


def tokens_of(tokenizer, rows, turns="all", max_length=4096, boundary="separate"):
    texts = [render("chat", row, tokenizer, turns) for row in rows]
    return tokenize(tokenizer, texts, max_length=max_length, boundary=boundary, template="chat")


def talk(*messages, **marks):
    return {"messages": [{"role": role, "content": text} | marks.get(text, {}) for role, text in messages]}


def runs(places):
    """Neighbouring places together."""
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)


@pytest.mark.parametrize("boundary", ["separate", "official"])
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=8, deadline=None)
@given(messages=conversations())
def test_every_answer_and_its_end_are_learnt_and_nothing_else(name, boundary, messages):
    kind, tokenizer = KINDS[name], TOKENIZERS[name]
    if not kind.system:
        messages = [message for message in messages if message.role != "system"]
    row = row_with(messages)
    (example,) = tokens_of(tokenizer, [row], boundary=boundary)
    (last,) = tokens_of(tokenizer, [row], "last", boundary=boundary)
    assert example.tokens.tolist() == last.tokens.tolist()
    learnt = runs(example.loss_places)
    assert learnt[-1].tolist() == last.loss_places.tolist()
    answers = [message.content for message in messages if message.role == "assistant"]
    assert len(learnt) == len(answers)
    closing = {"phi3": ["<|end|>"], "unmarked": []}.get(name, list(kind.closing))
    for places, answer in zip(learnt[:-1], answers, strict=False):
        found = pieces_of(tokenizer, example.tokens[places])
        assert found[len(found) - len(closing) :] == closing
        said = tokenizer.decode(example.tokens[places[: len(places) - len(closing)]])
        assert said.strip() == answer.strip()


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("thinking", "unmarked", "phi3")])
def test_they_are_what_each_conversation_that_ends_there_would_learn(name):
    tokenizer = TOKENIZERS[name]
    (whole,) = tokens_of(tokenizer, [row_of(talk(*TALK), "")])
    expected = []
    for end in (2, 4, 6):
        (part,) = tokens_of(tokenizer, [row_of(talk(*TALK[:end]), "")], "last")
        assert part.tokens.tolist() == whole.tokens[: len(part.tokens)].tolist()
        expected += part.loss_places.tolist()
    assert whole.loss_places.tolist() == expected


def test_answers_that_their_maker_left_out_are_context():
    tokenizer = TOKENIZERS["chatml"]
    marked = talk(*TALK, **{"it is 7": {"weight": 0}})
    led = marked | {"system": "Be brief."}  # stands before all, in a field of its own
    asked = {"system": "Be brief.", "history": marked["messages"][:4], "instruction": "so", "output": "7"}
    for row in (marked, led, asked):
        (example,) = tokens_of(tokenizer, [row_of(row, "")])
        said = [tokenizer.decode(example.tokens[places]) for places in runs(example.loss_places)]
        assert said == ["3<|im_end|>", "7<|im_end|>"]
    (greeting,) = tokens_of(tokenizer, [row_of(talk(("assistant", "hi"), *TALK[:2]), "")])
    assert tokenizer.decode(greeting.tokens[greeting.loss_places]) == "3<|im_end|>"


def test_a_template_that_begins_earlier_answers_in_another_way_is_refused():
    earlier = "{{ 'helper' if m.role == 'assistant' and not loop.last else m.role }}"
    tokenizer = changed("{{ m.role }}", earlier)
    row = row_of(talk(*TALK), "pool.jsonl:4")
    assert render("chat", row, tokenizer)
    with pytest.raises(
        InputError, match=r"^pool\.jsonl:4: .* not begin message 1 .*: set tokenize\.turns='last'"
    ):
        render("chat", row, tokenizer, "all")
    with pytest.raises(InputError, match="turns='each': choose one of last, all"):
        render("chat", row, tokenizer, "each")


def test_the_field_needs_the_chat_template_and_changes_the_pool():
    config = default()
    config.tokenize.turns = "all"
    with pytest.raises(InputError, match=r"tokenize\.turns='all' is for conversations, .*'alpaca' has room"):
        validate(config)
    config.tokenize.prompt = "chat"
    validate(config)
    marks = {
        fingerprint("data", TOKENIZERS["chatml"], TokenizeSettings("chat", "separate", 64, turns))
        for turns in ("last", "all")
    }
    assert len(marks) == 2


def test_of_a_prepared_pool(tmp_path):
    tokenizer, settings_ = TOKENIZERS["chatml"], TokenizeSettings("chat", "separate", 60, "all")
    rows = [row_of(talk(*TALK), "f:1"), row_of(talk(*TALK[:2]), "f:2"), row_of(talk(*TALK[2:]), "f:3")]
    prepare(tmp_path / "pool", lambda: rows, tokenizer, settings_)
    pool = PreparedPool(tmp_path / "pool")
    expected = tokens_of(tokenizer, rows, max_length=60)
    assert expected[0].cut
    for number, example in enumerate(expected):
        assert example_places(pool, number).tolist() == example.loss_places.tolist()
    counts = [len(example.loss_places) for example in expected]
    assert loss_token_counts(pool, np.array([2, 0, 1, 0])).tolist() == [counts[i] for i in (2, 0, 1, 0)]
    assert pool.manifest["num_response_tokens"] == sum(counts)


@given(...)
def test_gaps_are_counted_and_found_by_row(seed: int):
    rng = np.random.default_rng(abs(seed))
    places = {}
    for row in rng.permutation(20)[:12]:
        ends = np.sort(rng.choice(np.arange(3, 40), 2 * rng.integers(0, 3), replace=False)).tolist()
        places[int(row)] = list(zip(ends[::2], ends[1::2], strict=True))
    spans = [(row, *span) for row in sorted(places) for span in places[row]]
    gaps, asked = Gaps.of(spans), rng.integers(0, 20, 30)
    assert [gaps.spans(int(row)) for row in asked] == [places.get(int(row), []) for row in asked]
    expected = [sum(end - start for start, end in places.get(int(row), [])) for row in asked]
    assert gaps.counts(asked).tolist() == expected
    for row, found in places.items():
        kept = [n for n in range(2, 30) if not any(start <= n < end for start, end in found)]
        assert loss_places(30, 2, gaps.spans(row)).tolist() == kept


def test_training_predicts_the_tokens_of_all_answers():
    rng = np.random.default_rng(0)
    examples = TokenizedList(
        TokenizedExample(rng.integers(0, 500, 24).astype(np.int32), 3, False, False, ((6, 9), (12, 12 + n)))
        for n in range(1, 9)
    )
    batches = Batches(
        examples, np.arange(8), np.ones(8, np.float32), batch_size=4, num_steps=2, seed=0, max_length=64
    )
    for step in range(2):
        batch = batches.read(step)
        rows = batch.rows
        for slot, number in enumerate(batch.slots[0, 0][:4]):
            mine = rows.loss_mask[0, 0] & (rows.loss_slot[0, 0] == slot)
            index, example = rows.loss_index[0, 0][mine], int(batch.examples[number])
            places = example_places(examples, example)
            tokens = examples.read([example])[0]
            assert rows.loss_targets[0, 0][mine].tolist() == tokens[places].tolist()
            assert rows.tokens[0, 0].reshape(-1)[index].tolist() == tokens[places - 1].tolist()
            assert rows.positions[0, 0].reshape(-1)[index].tolist() == (places - 1).tolist()
        assert batch.size.loss_tokens == rows.loss_mask.sum()


@pytest.mark.usefixtures("quick_compilation")
def test_a_loss_is_the_mean_over_the_tokens_of_all_answers(tiny_checkpoint, one_device_mesh):
    """Against each answer by itself, after all that stands before it; rows share a beginning, one is cut."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.chat_template = SHORT
    model = load_model(str(tiny_checkpoint), one_device_mesh)
    rows = [talk(*TALK[:4]), talk(*TALK[:2]), talk(*TALK[:2], *TALK[4:], *TALK[2:4])]
    length = 52
    found = example_losses(model, tokenizer, rows, prompt="chat", max_length=length, turns="all")
    alone, weights = [], []
    for row in rows:
        text, eos = "", [tokenizer.eos_token_id]
        for number, message in enumerate(row["messages"]):
            text += f"<{message['role'][0]}>"
            before = len(tokenizer(text)["input_ids"])
            text += f"{message['content']}<e>"
            ids = tokenizer(text)["input_ids"] + (eos if number == len(row["messages"]) - 1 else [])
            if message["role"] == "assistant" and before < length:
                ids = np.array(ids[:length], np.int32)
                alone.append(TokenizedExample(ids, before, False, False))
                weights.append((rows.index(row), len(ids) - before))
    assert len(alone) == 6
    assert max(len(example.tokens) for example in alone) == length
    losses = tokenized_losses(
        model, TokenizedList(alone), max_length=length, dtype=np.float32, mesh=one_device_mesh
    )
    of, counts = np.array(weights).T
    expected = np.bincount(of, losses * counts) / np.bincount(of, counts)
    np.testing.assert_allclose(found, expected, atol=5e-6)
    last = example_losses(model, tokenizer, rows, prompt="chat", max_length=length)
    assert np.abs(last - found).max() > 1e-3
    assert last[1] == pytest.approx(found[1], abs=5e-6)
