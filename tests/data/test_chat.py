"""The chat template as the prompt: the tokens a model was taught, the last answer alone learned."""

import dataclasses
import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.chat import closing_tokens
from s2l_jax.data.pool import PoolRow, row_of
from s2l_jax.data.pool_messages import Message
from s2l_jax.data.prepared import TokenizeSettings, fingerprint
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import end_tokens, tokenize_prompts
from s2l_jax.errors import InputError
from tests.support.chat import (
    CHATML,
    KINDS,
    LLAMA2,
    TOKENIZERS,
    UNMARKED,
    changed,
    example_of,
    make_tokenizer,
    row_with,
)

transformers = pytest.importorskip("transformers")

WORDS = st.text(st.sampled_from("ab19 +é漢\n.:"), max_size=12)
CONTENT = st.builds("{}{}".format, st.sampled_from("xyz7"), WORDS)


@st.composite
def conversations(draw):
    """Turns of user and assistant, with or without a system message before them."""
    messages = [Message("system", draw(CONTENT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(CONTENT)), Message("assistant", draw(CONTENT))]
    return messages


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
