"""What rows have beside instruction and response, as trainers of the field name it: read, or said."""

import json

import pytest

from s2l_jax.data.pool import FieldMap, read_rows, row_of
from s2l_jax.data.pool_fields import passed_over
from s2l_jax.data.pool_messages import Message
from s2l_jax.data.prompts import render
from s2l_jax.errors import InputError
from tests.support.pool_rows import write_jsonl

PLAIN = {"instruction": "And the sky?", "output": "Blue."}
TALK = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


def messages_of(row, **fields):
    return row_of(row, "row 1", FieldMap(**fields)).conversation


class TestRead:
    def test_a_system_message_comes_first(self):
        row = PLAIN | {"input": "Now.", "system": "You are a pirate."}
        assert messages_of(row) == (
            Message("system", "You are a pirate."),
            Message("user", "And the sky?\n\nNow."),
            Message("assistant", "Blue."),
        )
        for template in ("alpaca", "plain", "radiology"):
            prompt = render(template, row_of(row, ""))[0]
            assert all(text in prompt for text in ("You are a pirate.", "And the sky?", "Now."))

    def test_under_another_name(self):
        assert messages_of(PLAIN | {"system_prompt": "S."}, system="system_prompt")[0] == ("system", "S.")
        assert len(messages_of(PLAIN | {"system": "S."}, system="")) == 2

    def test_before_a_conversation(self):
        assert messages_of(TALK | {"system": "S."}) == (("system", "S."), ("user", "q"), ("assistant", "a"))
        led = {"messages": [{"role": "system", "content": "S."}, *TALK["messages"]]}
        assert messages_of(led | {"system": "S."}) == messages_of(led)
        with pytest.raises(
            InputError, match=r'its "system" is \'T\.\', but its "messages" begin with another'
        ):
            messages_of(led | {"system": "T."})

    @pytest.mark.parametrize(
        "history",
        [
            [["What colour is grass?", "Green."]],
            [{"role": "user", "content": "What colour is grass?"}, {"from": "gpt", "value": "Green."}],
        ],
    )
    def test_history_is_earlier_turns(self, history):
        turns = [("user", "What colour is grass?"), ("assistant", "Green."), ("user", "And the sky?")]
        row = PLAIN | {"system": "S.", "history": history}
        assert messages_of(row) == (("system", "S."), *turns, ("assistant", "Blue."))

    def test_history_where_the_template_has_no_room(self, tmp_path):
        rows = [PLAIN, PLAIN | {"history": [["q", "a"]]}]
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        with pytest.raises(InputError, match=r'a.jsonl:2: it has several turns .*tokenize.prompt="chat"'):
            list(read_rows(path, multi_turn=False))
        assert len(list(read_rows(path, multi_turn=False, fields=FieldMap(history="")))) == 2

    @pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)], TOOL])
    def test_tools(self, tools):
        assert row_of(TALK | {"tools": tools}, "").tools == (TOOL,)

    def test_tools_where_the_template_has_no_room(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", [TALK | {"tools": [TOOL]}])
        with pytest.raises(InputError, match=r'a.jsonl:1: has "tools", for which only a chat template'):
            list(read_rows(path, multi_turn=False))
        with pytest.raises(InputError, match=r"the row has tools, for which the prompt template 'plain'"):
            render("plain", row_of(TALK | {"tools": [TOOL]}, "row"))

    def test_empty_ones_change_nothing(self, tmp_path):
        empty = {"system": "", "history": [], "tools": None, "images": [], "label": True, "context": ""}
        for row in (PLAIN, TALK):
            (one,) = read_rows(write_jsonl(tmp_path / "a.jsonl", [row]))
            (other,) = read_rows(write_jsonl(tmp_path / "b.jsonl", [row | empty]))
            assert (one.id, one.messages, one.tools) == (other.id, other.messages, other.tools)

    def test_ids_follow_them(self, tmp_path):
        parts = [{}, {"system": "S."}, {"history": [["q", "a"]]}, {"tools": [TOOL]}]
        rows = list(read_rows(write_jsonl(tmp_path / "a.jsonl", [PLAIN | part for part in parts])))
        assert len({row.id for row in rows}) == 4
        again = list(read_rows(write_jsonl(tmp_path / "b.jsonl", [PLAIN | part for part in parts[::-1]])))
        assert [row.id for row in again] == [row.id for row in rows][::-1]


BAD = [
    ({"label": False}, r'its "label" is false, which marks a bad answer'),
    ({"kto_tag": False}, r'its "kto_tag" is false'),
    ({"kto_tag": "false"}, r'its "kto_tag" is false'),
    ({"images": ["a.jpg"]}, r'has "images" beside its text, which is not read: set fields.ignore="images"'),
    ({"image": {"bytes": "x"}}, r'has "image" beside its text'),
    ({"audios": ["a.wav"]}, r'has "audios"'),
    ({"system_prompt": "S."}, r'has "system_prompt", which is not read: set fields.system="system_prompt"'),
    ({"chat_history": [["q", "a"]]}, r'set fields.history="chat_history" to read it'),
    ({"functions": [TOOL]}, r'set fields.tools="functions" to read it'),
    ({"systemPrompt": "S."}, r'set fields.system="systemPrompt" to read it'),
    ({"System-Message": "S."}, r'set fields.system="System-Message" to read it'),
    ({"chatHistory": [["q", "a"]]}, r'set fields.history="chatHistory" to read it'),
    ({"toolSchemas": [TOOL]}, r'set fields.tools="toolSchemas" to read it'),
    ({"image_path": "a.jpg"}, r'has "image_path" beside its text'),
    ({"audioUrls": ["a.wav"]}, r'has "audioUrls" beside its text'),
    ({"isDesirable": False}, r'its "isDesirable" is false'),
    ({"loss_weight": 0.0}, r'its "loss_weight" is 0.0, so it is not to be learned.* fields.ignore'),
    ({"weight": "0"}, r'its "weight" is 0, so it is not to be learned.* fields.ignore'),
    ({"train": False}, r'its "train" is False, so it is not to be learned.* fields.ignore'),
    ({"context": "As was said."}, r'set fields.input="context" to read it, or fields.ignore="context"'),
    ({"history": "He said so."}, r'its "history" is not a list of pairs but str'),
    ({"history": [["q"]]}, r'its "history\[0\]" is not a pair'),
    ({"history": [["q", ""]]}, r'its "history\[0\]\[1\]" is empty'),
    ({"tools": "get_time"}, r'its "tools" is text that is not JSON'),
    ({"tools": [3]}, r'its "tools\[0\]" is not the schema of a function: 3'),
    ({"system": ["S."]}, r'its "system" is not text but list'),
]


@pytest.mark.parametrize(("part", "reason"), BAD)
def test_what_is_not_read_is_a_bad_row(tmp_path, part, reason):
    path = write_jsonl(tmp_path / "a.jsonl", [PLAIN, PLAIN | part])
    with pytest.raises(InputError, match=rf"a.jsonl:2: .*{reason}"):
        list(read_rows(path))
    reader = read_rows(path, on_bad_row="skip")
    assert [row.place for row in reader] == [f"{path}:1"]
    assert reader.num_skipped == 1


@pytest.mark.parametrize(
    "part", [part for part, reason in BAD if "fields.ignore" in reason or "false" in reason]
)
def test_unless_its_loss_is_wanted(part):
    (name,) = part
    row = row_of(PLAIN | part, "", FieldMap(ignore=(name,)))
    assert row.conversation == row_of(PLAIN, "").conversation
    assert row.original[name] == part[name]


@pytest.mark.parametrize("label", [True, 0, "false", "cat", None])
def test_labels_of_other_things(label):
    assert row_of(PLAIN | {"label": label}, "").output == "Blue."


def test_other_fields_are_told():
    row = PLAIN | {"persona": "A pirate.", "hint": "", "score": 3.5, "ok": True, "meta": {"a": 1}, "url": "u"}
    assert list(passed_over(row, FieldMap(ignore=("url",)))) == ["persona", "meta"]
    assert list(passed_over(row, FieldMap(system="persona", ignore=("url", "meta")))) == []
    assert list(passed_over(TALK | {"instruction": "Translate."}, FieldMap())) == ["instruction"]
    assert list(passed_over(TALK | {"weight": 0.5, "loss_weight": 1, "train": True}, FieldMap())) == [
        "weight"
    ]


def test_a_mapped_field_may_have_any_name():
    fields = FieldMap(instruction="documents", input="context", output="images", source="label")
    row = row_of({"documents": "d", "context": "c", "images": "i", "label": "x"}, "", fields)
    assert (row.instruction, row.input, row.output, row.source) == ("d", "c", "i", "x")


def weighed(**extra):
    user, answer = TALK["messages"]
    return {"messages": [user | {"weight": 0.0, "loss_weight": 0}, answer | extra]}


@pytest.mark.parametrize(
    "extra",
    [
        {"weight": 0},
        {"weight": 0.5},
        {"weight": 2},
        {"loss_weight": 0.0},
        {"train": False},
        {"training": False},
        {"loss": False},
        {"weight": "0"},
        {"lossWeight": 0},
        {"Train": False},
        {"mask": True},
        {"train_detail": [{"begin_offset": 0, "end_offset": 0, "train": False}]},
    ],
)
def test_a_response_that_is_not_to_be_learned(extra):
    (name,) = extra
    with pytest.raises(InputError, match=rf'row 1: its "messages\[1\]", the response, has "{name}": '):
        row_of(weighed(**extra), "row 1")
    assert row_of(weighed(**extra), "", FieldMap(ignore=(name,))).output == "a"


@pytest.mark.parametrize(
    "extra", [{"weight": 1}, {"train": True}, {"weight": None}, {"loss": 2.3}, {"mask": 0}]
)
def test_a_response_that_is(extra):
    assert row_of(weighed(**extra), "").output == "a"
    unlearned = [{"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "r"}]
    talk = weighed(**extra)["messages"]
    assert row_of({"messages": [talk[0], *unlearned, talk[1]]}, "").output == "a"


def test_a_part_of_a_content_without_its_text():
    row = {"messages": [{"role": "user", "content": [{"type": "text", "value": "q"}]}, TALK["messages"][1]]}
    with pytest.raises(
        InputError, match=r'"messages\[0\].content\[0\]" has no "text"; it has "type", "value"'
    ):
        row_of(row, "")


def test_what_is_ignored_in_messages_is_in_a_history_too():
    history = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "hm"}]
    row = {"instruction": "more", "output": "b", "history": history}
    with pytest.raises(InputError, match=r'"history\[1\]" has "reasoning", which is not read'):
        row_of(row, "", FieldMap())
    read = row_of(row, "", FieldMap(ignore=("reasoning",)))
    assert [message.content for message in read.conversation] == ["q", "a", "more", "b"]
