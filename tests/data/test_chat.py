"""The chat template as the prompt: the tokens a model was taught, the last answer alone learned."""

import dataclasses
import datetime
import json
from typing import ClassVar

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.config import default, validate
from s2l_jax.data.chat import closing_tokens
from s2l_jax.data.pool import PoolRow, row_of
from s2l_jax.data.pool_messages import Message
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint, prepare
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedExample, TokenizedList, end_tokens, tokenize, tokenize_prompts
from s2l_jax.errors import InputError
from s2l_jax.pipeline.stages.pool import prepare_pool
from s2l_jax.training.run import Run

transformers = pytest.importorskip("transformers")

CHATML = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA3 = """\
{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

PHI3 = """\
{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% else %}{{ eos_token }}{% endif %}"""

GEMMA = """\
{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

# As Qwen3 does: the last answer opens with a block of thought, empty where there is none.
THINKING = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.last %}{% if '</think>' in m.content %}<think>
{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') }}
</think>

{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% else %}<think>

</think>

{{ m.content }}{% endif %}{% else %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

LLAMA2 = """\
{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]\
{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"""

UNMARKED = """\
{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A family of chat models: its template, its tokens, and what they mean."""

    template: str
    tokens: tuple[str, ...]  # beside <s> and </s>
    header: tuple[str, ...]  # the last tokens of a prompt
    closing: tuple[str, ...]  # what a response ends with
    starts: bool = False  # the template writes the beginning-of-sequence token
    system: bool = True
    eats_space: bool = False  # the added tokens take the white space after them


KINDS = {
    "chatml": Kind(CHATML, ("<|im_start|>", "<|im_end|>"), ("assistant", "Ċ"), ("<|im_end|>",)),
    "llama3": Kind(
        LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ("<|end_header_id|>", "Ċ", "Ċ"),
        ("<|eot_id|>",),
        starts=True,
    ),
    "phi3": Kind(
        PHI3,
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ("<|assistant|>",),
        ("<|end|>", "</s>"),
        eats_space=True,
    ),
    "gemma": Kind(
        GEMMA,
        ("<start_of_turn>", "<end_of_turn>"),
        ("model", "Ċ"),
        ("<end_of_turn>",),
        starts=True,
        system=False,
    ),
    "thinking": Kind(
        THINKING, ("<|im_start|>", "<|im_end|>", "<think>", "</think>"), ("Ċ", "Ċ"), ("<|im_end|>",)
    ),
    "unmarked": Kind(UNMARKED, (), (":", "Ġ"), ("</s>",)),
}


def make_tokenizer(kind, template=None):
    """Bytes and a few words, with the kind's tokens; by itself it begins every text with <s>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in ("assistant", "model"):
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
            pieces.append(word[:end])
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, rstrip=kind.eats_space) for token in kind.tokens]
    )
    start = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        chat_template=kind.template if template is None else template,
        clean_up_tokenization_spaces=False,
    )


TOKENIZERS = {name: make_tokenizer(kind) for name, kind in KINDS.items()}

WORDS = st.text(st.sampled_from("ab19 +é漢\n.:"), max_size=12)
CONTENT = st.builds("{}{}".format, st.sampled_from("xyz7"), WORDS)


@st.composite
def conversations(draw):
    """Turns of user and assistant, with or without a system message before them."""
    messages = [Message("system", draw(CONTENT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(CONTENT)), Message("assistant", draw(CONTENT))]
    return messages


def row_with(messages):
    return row_of({"messages": [message._asdict() for message in messages]}, "pool.jsonl:4")


def example_of(tokenizer, row, **options):
    texts = [render("chat", row, tokenizer)]
    (example,) = tokenize(tokenizer, texts, max_length=4096, template="chat", **options)
    return example


def pieces_of(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens([int(i) for i in ids])


@pytest.mark.parametrize("boundary", ["separate", "official"])
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(messages=conversations())
def test_the_tokens_of_the_whole_conversation_with_the_last_answer_unmasked(name, boundary, messages):
    kind, tokenizer = KINDS[name], TOKENIZERS[name]
    if not kind.system:
        messages = [message for message in messages if message.role != "system"]
    row = row_with(messages)
    example = example_of(tokenizer, row, boundary=boundary)
    masked, learned = example.tokens[: example.prompt_length], example.tokens[example.prompt_length :]

    # The whole is what transformers makes of the conversation, but for the line end after it.
    plain = [message._asdict() for message in messages]
    text = tokenizer.apply_chat_template(plain, tokenize=False).rstrip("\n")
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    if name == "unmarked":
        expected.append(tokenizer.eos_token_id)
    assert example.tokens.tolist() == expected

    # What is masked is what the model is given when it answers.
    prompt = render("chat", row, tokenizer)[0]
    assert tokenize_prompts(tokenizer, [prompt], "chat") == [masked.tolist()]
    assert pieces_of(tokenizer, masked)[-len(kind.header) :] == list(kind.header)
    if name != "thinking":
        options = {"add_generation_prompt": True, "return_dict": False}
        assert tokenizer.apply_chat_template(plain[:-1], **options) == masked.tolist()

    # What is learned is the last answer and its end, and nothing else.
    assert pieces_of(tokenizer, learned)[-len(kind.closing) :] == list(kind.closing)
    answer = learned[: -len(kind.closing)]
    assert not set(answer.tolist()) & set(tokenizer.all_special_ids)
    said = tokenizer.decode(answer)
    if name in ("llama3", "gemma"):
        assert said == messages[-1].content.strip()
    elif name == "unmarked":
        assert said == messages[-1].content.rstrip("\n")
    else:
        assert said == messages[-1].content

    assert example.tokens.tolist().count(tokenizer.bos_token_id) == kind.starts
    assert not example.boundary_merged


@pytest.mark.parametrize("name", KINDS)
def test_rows_of_instruction_and_input_are_one_message_of_the_user(name):
    tokenizer = TOKENIZERS[name]
    row = row_of({"instruction": "Add.", "input": "2, 3", "output": "5"}, "")
    same = row_with([Message("user", "Add.\n\n2, 3"), Message("assistant", "5")])
    assert render("chat", row, tokenizer) == render("chat", same, tokenizer)
    bare = row_of({"instruction": "Add 2, 3", "output": "5"}, "")
    assert "Add 2, 3" in render("chat", bare, tokenizer)[0]
    assert not render("chat", bare, tokenizer)[0].endswith("Add 2, 3\n\n")


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_ends_at_what_closes_a_turn_and_at_the_end_of_sequence(name):
    kind, tokenizer = KINDS[name], TOKENIZERS[name]
    expected = dict.fromkeys(["</s>", *kind.closing])
    assert pieces_of(tokenizer, end_tokens(tokenizer, "chat")) == list(expected)
    assert end_tokens(tokenizer, "alpaca") == (tokenizer.eos_token_id,)


def test_a_turn_may_end_with_the_end_of_sequence():
    """As that of instruction-tuned Qwen models, whose eos_token is <|im_end|>."""
    tokenizer = make_tokenizer(KINDS["chatml"])
    tokenizer.eos_token = "<|im_end|>"
    assert pieces_of(tokenizer, end_tokens(tokenizer, "chat")) == ["<|im_end|>"]
    example = example_of(tokenizer, row_with([Message("user", "q"), Message("assistant", "a")]))
    assert pieces_of(tokenizer, example.tokens).count("<|im_end|>") == 2


def test_a_tokeniser_that_begins_every_text_with_a_space():
    """Llama 2's: tokenised by itself, a response would begin with one space more."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = ["<s>", "</s>", "▁", *"abINST[]/xyz "]
    bpe = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.add_special_tokens(["<s>", "</s>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        chat_template=LLAMA2.replace(" {{ m.content }} {{", "{{ m.content }} {{"),
    )
    row = row_with([Message("user", "ab"), Message("assistant", "xy")])
    for boundary in ("separate", "official"):
        example = example_of(tokenizer, row, boundary=boundary)
        learned = pieces_of(tokenizer, example.tokens[example.prompt_length :])
        assert learned == ["x", "y", "▁", "</s>"]
    assert end_tokens(tokenizer, "chat") == (tokenizer.eos_token_id,)


def test_a_response_that_joins_the_prompt_is_tokenised_apart_or_masked():
    """As everywhere: `official` masks as many tokens as the prompt has, `separate` keeps the prompt's."""
    tokenizer = make_tokenizer(KINDS["unmarked"], UNMARKED.replace("assistant: ", "assistant: ass"))
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ m.role }}: ", "{{ m.role }}: {{ 'ass' if m.role == 'assistant' }}"
    )
    row = row_with([Message("user", "q"), Message("assistant", "istant")])
    prompt = tokenize_prompts(tokenizer, [render("chat", row, tokenizer)[0]], "chat")[0]
    separate = example_of(tokenizer, row)
    assert separate.tokens[: separate.prompt_length].tolist() == prompt
    assert tokenizer.decode(separate.tokens[separate.prompt_length :]) == "istant</s>"
    official = example_of(tokenizer, row, boundary="official")
    assert official.boundary_merged
    assert official.prompt_length == len(prompt)


class TestThinking:
    def test_a_response_without_thoughts_comes_after_the_closed_block(self):
        row = row_with([Message("user", "q"), Message("assistant", "a")])
        prompt, response = render("chat", row, TOKENIZERS["thinking"])
        assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        assert response == "a<|im_end|>"

    def test_thoughts_in_the_response_are_learned(self):
        row = row_with([Message("user", "q"), Message("assistant", "<think>\nhm\n</think>\n\na")])
        prompt, response = render("chat", row, TOKENIZERS["thinking"])
        assert prompt.endswith("<|im_start|>assistant\n")
        assert response == "<think>\nhm\n</think>\n\na<|im_end|>"


def changed(old, new, kind="chatml"):
    assert old in KINDS[kind].template
    return make_tokenizer(KINDS[kind], KINDS[kind].template.replace(old, new))


class TestErrors:
    ROW = PoolRow(1, "q", "", "answer", "", {}, "pool.jsonl:7")

    def test_no_template(self):
        tokenizer = make_tokenizer(KINDS["chatml"])
        tokenizer.chat_template = None
        for use in (
            lambda: render("chat", self.ROW, tokenizer),
            lambda: end_tokens(tokenizer, "chat"),
            lambda: fingerprint("data", tokenizer, TokenizeSettings("chat", "separate", 9)),
        ):
            with pytest.raises(InputError, match=r"has none: put one as chat_template\.jinja beside its"):
                use()

    def test_no_tokeniser(self):
        with pytest.raises(InputError, match="give the tokeniser"):
            render("chat", self.ROW)

    def test_a_template_that_takes_no_system_message(self):
        row = row_with([Message("system", "s"), Message("user", "q"), Message("assistant", "a")])
        with pytest.raises(
            InputError,
            match=r"^pool.jsonl:4: .*refuses the messages \(.*System role not supported\)\. .*user's first",
        ):
            render("chat", row, TOKENIZERS["gemma"])

    def test_a_template_that_refuses_for_another_reason(self):
        tokenizer = changed("{% for", "{{ raise_exception('never') }}{% for")
        row = row_with([Message("system", "s"), Message("user", "q"), Message("assistant", "a")])
        with pytest.raises(InputError, match=r"\(TemplateError: never\)\. Correct the row's messages"):
            render("chat", row, tokenizer)

    def test_a_template_that_is_broken(self):
        with pytest.raises(InputError, match=r"^pool.jsonl:7: the chat template .* refuses the messages"):
            render("chat", self.ROW, changed("{% endfor %}", ""))

    def test_a_generation_prompt_that_begins_no_answer(self):
        tokenizer = changed("assistant\n{% endif", "assistant\n<think>\n{% endif")
        with pytest.raises(InputError, match=r"^pool.jsonl:7: .*<think>\\n' for the model to go on from"):
            render("chat", self.ROW, tokenizer)

    def test_a_template_without_a_generation_prompt(self):
        """The model would have to write the header of its turn."""
        tokenizer = changed("{% if add_generation_prompt", "{% if false and add_generation_prompt")
        with pytest.raises(
            InputError, match=r"no heed to add_generation_prompt, .*'<\|im_start\|>assistant\\n'"
        ):
            closing_tokens(tokenizer)

    def test_a_template_that_drops_part_of_a_response(self):
        tokenizer = changed("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
        row = dataclasses.replace(self.ROW, output="<think>a</think>b")
        with pytest.raises(InputError, match=r"changes or drops part of the response '<think>a</think>b'"):
            render("chat", row, tokenizer)

    def test_several_turns_under_another_template(self):
        row = row_with([Message("user", "q"), Message("assistant", "a")] * 2)
        for template in ("alpaca", "plain", "radiology"):
            with pytest.raises(
                InputError, match=rf"^pool.jsonl:4: .*'{template}' has no room.*prompt=\"chat\""
            ):
                render(template, row)


class TestDates:
    def test_do_not_follow_the_clock(self):
        formats = ("%d %b %Y", "%Y-%m-%d", "%A, %B %d, %Y %H:%M:%S", "%d/%m/%y")
        dates = " ".join("{{ strftime_now(" + repr(each) + ") }}" for each in formats)
        # Line ends around it tell whether anything but the date is changed.
        tokenizer = make_tokenizer(KINDS["chatml"], "\n\n" + dates + "\n" + CHATML)
        prompt, _ = render("chat", TestErrors.ROW, tokenizer)
        day = datetime.datetime(2024, 7, 26)
        shown = " ".join(day.strftime(each) for each in formats)
        undated, _ = render("chat", TestErrors.ROW, TOKENIZERS["chatml"])
        assert prompt == "\n\n" + shown + "\n" + undated

    def test_a_date_that_is_set_where_there_is_a_clock(self):
        """Llama 3.2's way to write it."""
        start = (
            "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}"
            "{% else %}{% set day = 'never' %}{% endif %}{{ day }}"
        )
        prompt, _ = render("chat", TestErrors.ROW, make_tokenizer(KINDS["chatml"], start + CHATML))
        assert prompt.startswith("26 Jul 2024<|im_start|>")


class TestStage:
    TALK: ClassVar = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]

    @pytest.fixture
    def run(self, tmp_path, one_device_mesh):
        """A run over a row of one turn and one of two, whose models are tokenisers alone."""
        config = default()
        for model in ("proxy", "target"):
            make_tokenizer(KINDS["llama3"]).save_pretrained(tmp_path / model)
            config[model].checkpoint = str(tmp_path / model)
        lines = [json.dumps({"messages": self.TALK * turns}) for turns in (1, 2)]
        (tmp_path / "pool.jsonl").write_text("\n".join(lines))
        config.pool.path = str(tmp_path / "pool.jsonl")
        config.tokenize.prompt = "chat"
        config.trajectories.every = 1
        validate(config)
        return Run(config, epath.Path(tmp_path / "run"), one_device_mesh)

    def test_a_tokeniser_without_a_template_is_refused_before_any_row_is_read(self, run, tmp_path):
        bare = make_tokenizer(KINDS["llama3"])
        bare.chat_template = None
        for file in (tmp_path / "target").iterdir():
            file.unlink()
        bare.save_pretrained(tmp_path / "target")
        with pytest.raises(InputError, match=r"the tokeniser '.*/target' has none"):
            prepare_pool(run, models=("proxy", "target"))
        assert not list(tmp_path.rglob("manifest.json"))

    def test_too_little_room(self, run):
        run.config.tokenize.max_length = 5
        with pytest.raises(InputError, match=r"max_length=5 leaves no room .* 'chat' alone has \d+ tokens"):
            prepare_pool(run, models=("proxy",))

    def test_several_turns(self, run):
        pools = prepare_pool(run, models=("proxy", "target"))
        assert pools["proxy"] is pools["target"]
        assert len(pools["rows"]) == 2

    @pytest.mark.parametrize("on_bad_row", ["error", "skip"])
    def test_several_turns_under_another_template(self, run, on_bad_row):
        run.config.tokenize.prompt = "plain"
        run.config.pool.on_bad_row = on_bad_row
        if on_bad_row == "error":
            with pytest.raises(InputError, match=r'pool\.jsonl:2: .* set tokenize\.prompt="chat"'):
                prepare_pool(run, models=("proxy",))
        else:
            pool = prepare_pool(run, models=("proxy",))["proxy"]
            assert (len(pool), pool.manifest["num_skipped"]) == (1, 1)

    def test_rows_that_either_template_loses_text_of_are_skipped_for_both(self, run, tmp_path):
        """A row that is missing from one model's pool is missing from the other's."""
        make_tokenizer(KINDS["gemma"]).save_pretrained(tmp_path / "target")  # it takes no system message
        led = [{"role": "system", "content": "s"}, *self.TALK]
        block = [self.TALK[0], {"role": "assistant", "content": "  a\n  b"}]  # both trim
        kept = [self.TALK, [*self.TALK, *self.TALK]]
        lines = [json.dumps({"messages": talk}) for talk in (kept[0], led, block, kept[1])]
        (tmp_path / "pool.jsonl").write_text("\n".join(lines))
        with pytest.raises(InputError, match=r"pool\.jsonl:3: .*changes or drops part of the response"):
            prepare_pool(run, models=("proxy",))
        run.config.pool.on_bad_row = "skip"
        pools = prepare_pool(run, models=("proxy",)) | prepare_pool(run, models=("target",))
        pools |= {"none": prepare_pool(run, models=())["rows"]}
        for pool in pools.values():
            assert [row["messages"] for row in pool.originals(range(len(pool)))] == kept
            assert pool.manifest["num_skipped"] == 2
            (_, system), (place, reason) = pool.manifest["skipped"]
            assert "refuses the messages" in system
            assert place.endswith("pool.jsonl:3")
            assert reason.startswith("the chat template of the tokeniser")

    def test_a_template_that_no_row_fits_is_refused_at_once(self, run, tmp_path):
        run.config.pool.on_bad_row = "skip"
        run.config.pool.path = str(tmp_path / "pool.jsonl")
        bare = KINDS["llama3"].template.replace("{{ m.content | trim }}", "")
        make_tokenizer(KINDS["llama3"], bare).save_pretrained(tmp_path / "target")
        (tmp_path / "pool.jsonl").write_text("no JSON")  # is never read
        with pytest.raises(
            InputError, match=r"^the chat template of .*changes or drops part of the response"
        ):
            prepare_pool(run, models=("proxy",))

    def test_heldout_rows_follow_the_same_rule(self, run):
        from s2l_jax.pipeline.stages.evaluation import problems_of, tasks_of

        run.config.evaluation.path = run.config.pool.path
        (task,) = tasks_of(run)
        assert [len(problem.row.messages) for problem in problems_of(run, task)] == [2, 4]
        run.config.tokenize.prompt = "plain"
        with pytest.raises(InputError, match=r"pool\.jsonl:2: .* several turns"):
            problems_of(run, task)


def test_example_losses_are_of_the_last_answer(tiny_checkpoint, one_device_mesh):
    """Earlier turns of the assistant are context: the loss is that of the answer after them."""
    from s2l_jax import example_losses, load_model
    from s2l_jax.trajectories.sweep import tokenized_losses

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.chat_template = UNMARKED
    model = load_model(str(tiny_checkpoint), one_device_mesh)
    talk = [*TestStage.TALK, {"role": "user", "content": "copy b"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": talk}, {"instruction": "copy b", "output": "b"}]
    losses = example_losses(model, tokenizer, rows, prompt="chat", max_length=96)
    prompt = tokenizer("user: q\nassistant: a\nuser: copy b\nassistant: ")["input_ids"]
    ids = np.array([*prompt, *tokenizer("b")["input_ids"], tokenizer.eos_token_id], np.int32)
    by_hand = TokenizedList([TokenizedExample(ids, len(prompt), False, False)])
    options = {"max_length": 96, "dtype": np.float32, "mesh": one_device_mesh}
    np.testing.assert_allclose(losses[:1], tokenized_losses(model, by_hand, **options), atol=5e-6)
    assert losses[0] != losses[1]


class TestPreparedPool:
    SETTINGS = TokenizeSettings("chat", "separate", 64)

    def test_the_fingerprint_follows_the_template(self):
        tokenizers = [
            make_tokenizer(KINDS["chatml"]),
            changed("{{ m.role }}", "{{ m.role | upper }}"),
            make_tokenizer(KINDS["chatml"]),
        ]
        tokenizers[2].bos_token = "<|im_start|>"
        marks = [fingerprint("data", tokenizer, self.SETTINGS) for tokenizer in tokenizers]
        assert len(set(marks)) == 3
        assert fingerprint("data", make_tokenizer(KINDS["chatml"]), self.SETTINGS) == marks[0]
        plain = TokenizeSettings("plain", "separate", 64)
        assert len({fingerprint("data", tokenizer, plain) for tokenizer in tokenizers}) == 1

    def test_rows_of_both_kinds(self, tmp_path):
        tokenizer = TOKENIZERS["llama3"]
        talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * 2}
        rows = [row_of(talk, "f:1"), row_of({"instruction": "q", "output": "a"}, "f:2")]
        prepare(tmp_path / "pool", lambda: rows, tokenizer, self.SETTINGS)
        pool = PreparedPool(tmp_path / "pool")
        assert list(pool.originals([0, 1])) == [talk, {"instruction": "q", "output": "a"}]
        for tokens, row, masked in zip(pool.read([0, 1]), rows, pool.prompt_lengths, strict=True):
            example = example_of(tokenizer, row)
            assert tokens.tolist() == example.tokens.tolist()
            assert masked == example.prompt_length
