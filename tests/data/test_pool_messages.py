"""Rows with messages: which conversations are read, as what, and how the others are named."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.pool import FieldMap, read_rows, row_of
from s2l_jax.data.pool_messages import Message, conversation, single_turn
from s2l_jax.errors import InputError

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What is 2 + 3?"}
ANSWER = {"role": "assistant", "content": "5"}
AGAIN = [{"role": "user", "content": "And 2 + 4?"}, {"role": "assistant", "content": "6"}]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read(tmp_path, *rows, **options):
    return list(read_rows(write_jsonl(tmp_path / "a.jsonl", rows), **options))


def contents(row):
    return row.instruction, row.input, row.output


class TestRows:
    def test_a_single_turn_has_an_instruction(self, tmp_path):
        (row,) = read(tmp_path, {"messages": [USER, ANSWER], "source": "sums"})
        assert contents(row) == ("What is 2 + 3?", "", "5")
        assert row.source == "sums"
        assert row.messages == (Message("user", "What is 2 + 3?"), Message("assistant", "5"))
        assert row.original == {"messages": [USER, ANSWER], "source": "sums"}

    def test_a_system_message_is_the_instruction_and_the_users_its_input(self, tmp_path):
        (row,) = read(tmp_path, {"messages": [SYSTEM, USER, ANSWER]}, multi_turn=False)
        assert contents(row) == ("Be brief.", "What is 2 + 3?", "5")

    def test_several_turns_have_none(self, tmp_path):
        (row,) = read(tmp_path, {"messages": [USER, ANSWER, *AGAIN]})
        assert contents(row) == ("", "", "6")
        assert [message.content for message in row.messages] == ["What is 2 + 3?", "5", "And 2 + 4?", "6"]

    def test_both_kinds_of_rows_in_one_pool(self, tmp_path):
        rows = read(
            tmp_path,
            {"instruction": "q", "output": "a"},
            {"messages": [USER, ANSWER]},
            {"messages": None, "instruction": "q2", "output": "a2"},
        )
        assert [row.output for row in rows] == ["a", "5", "a2"]
        assert [bool(row.messages) for row in rows] == [False, True, False]

    def test_sharegpt(self, tmp_path):
        talk = [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
            {"from": "user", "value": "Bye"},
            {"from": "assistant", "value": "See you"},
        ]
        (row,) = read(tmp_path, {"conversations": talk}, fields=FieldMap(messages="conversations"))
        roles = [message.role for message in row.messages]
        assert roles == ["system", "user", "assistant", "user", "assistant"]
        assert row.output == "See you"

    def test_two_texts_are_the_users_and_the_assistants(self, tmp_path):
        fields = FieldMap(messages="conversations")
        (row,) = read(tmp_path, {"conversations": ["What is 2 + 3?", "5"]}, fields=fields, multi_turn=False)
        assert contents(row) == ("What is 2 + 3?", "", "5")
        (same,) = read(tmp_path, {"messages": [USER, ANSWER]})
        assert row.id == same.id
        for texts in (["one"], ["a", "b", "c", "d"]):
            with pytest.raises(
                InputError, match=rf'its "conversations" are {len(texts)} texts without roles'
            ):
                read(tmp_path, {"conversations": texts}, fields=fields)
        with pytest.raises(InputError, match=r'its "conversations\[1\]" is empty'):
            read(tmp_path, {"conversations": ["a", " "]}, fields=fields)

    def test_parts_of_text_are_joined(self, tmp_path):
        parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?"}]
        (row,) = read(tmp_path, {"messages": [{"role": "user", "content": parts}, ANSWER]})
        assert row.instruction == "What is 2 + 3?"

    def test_parquet(self, tmp_path):
        """Arrow gives every message every field that one of them has, null where it had none."""
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        rows = [{"messages": [SYSTEM | {"tool_calls": None}, USER, ANSWER]}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        (row,) = read_rows(tmp_path / "a.parquet")
        assert contents(row) == ("Be brief.", "What is 2 + 3?", "5")

    def test_a_field_that_was_set_and_never_met(self, tmp_path):
        with pytest.raises(InputError, match=r'none of the 1 rows .* has the field "chat"'):
            read(tmp_path, {"instruction": "q", "output": "a"}, fields=FieldMap(messages="chat"))

    def test_none_where_the_field_is_switched_off(self, tmp_path):
        row = {"messages": "odd", "instruction": "q", "output": "a"}
        (read_row,) = read(tmp_path, row, fields=FieldMap(messages=""))
        assert (read_row.instruction, read_row.messages) == ("q", ())

    def test_an_output_that_says_the_same(self, tmp_path):
        (row,) = read(tmp_path, {"messages": [USER, ANSWER], "instruction": "other", "output": "5"})
        assert contents(row) == ("What is 2 + 3?", "", "5")


class TestIds:
    def test_follow_every_message_and_the_source(self, tmp_path):
        base = {"messages": [SYSTEM, USER, ANSWER, *AGAIN]}
        rows = [base, base | {"source": "s"}]
        for number in range(5):
            changed = copy.deepcopy(base)
            changed["messages"][number]["content"] += "!"
            rows.append(changed)
        other_role = copy.deepcopy(base)
        other_role["messages"][0]["role"] = "user"
        rows.append(other_role)
        ids = [row.id for row in read(tmp_path, *rows)]
        assert len(set(ids)) == len(rows)
        assert [row.id for row in read(tmp_path, *rows[::-1])] == ids[::-1]

    def test_the_same_in_either_form(self, tmp_path):
        talk = [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": "5"}]
        (one,) = read(tmp_path, {"messages": [USER, ANSWER], "score": 1})
        (other,) = read(tmp_path, {"talk": talk}, fields=FieldMap(messages="talk"))
        assert one.id == other.id

    def test_repeats_are_numbered(self, tmp_path):
        rows = read(tmp_path, *[{"messages": [USER, ANSWER]}] * 3)
        assert len({row.id for row in rows}) == 3


BAD = {
    "text": ("Hello", r'its "messages" is not a list of messages but str: \'Hello\''),
    "empty": ([], r'its "messages" is empty'),
    "no response": ([USER], r"the last message of its .*must be the assistant's and is the user's"),
    "no user": ([SYSTEM, ANSWER], r'its "messages" has no message of the user before the response'),
    "only a response": ([ANSWER], r"has no message of the user"),
    "unknown role": (
        [USER, {"role": "tool", "content": "5"}, ANSWER],
        r'its "messages\[1\]" is from \'tool\'; roles that are known are system, user, assistant',
    ),
    "role of no kind": ([USER, {"role": ["user"], "content": "5"}, ANSWER], r"is from \['user'\]"),
    "no role": ([{"content": "q"}, ANSWER], r'its "messages\[0\]" has no "role"; it has "content"'),
    "no content": ([{"role": "user"}, ANSWER], r'its "messages\[0\]" has no "content"; it has "role"'),
    "no value": ([{"from": "human", "content": "q"}, ANSWER], r'has no "value"; it has "from", "content"'),
    "nothing": ([{}, ANSWER], r'has no "role"; it has nothing'),
    "no message": (["q", ANSWER], r'its "messages\[0\]" is not a message but str: \'q\''),
    "number": (
        [USER, {"role": "assistant", "content": 5}],
        r'"messages\[1\].content" is not text but int: 5',
    ),
    "null": ([USER, {"role": "assistant", "content": None}], r"is not text but NoneType"),
    "blank": ([USER, {"role": "assistant", "content": " \n"}], r'"messages\[1\].content" is empty: \' \\n\''),
    "blank prompt": ([{"role": "user", "content": ""}, ANSWER], r'"messages\[0\].content" is empty'),
    "picture": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ANSWER],
        r'"messages\[0\].content\[0\]" is of type \'image_url\'; only parts of type "text"',
    ),
    "odd part": ([{"role": "user", "content": ["q"]}, ANSWER], r"content\[0\]\" is of type 'str'"),
    "no parts": ([{"role": "user", "content": []}, ANSWER], r'content" is empty'),
    "surrogate": ([{"role": "user", "content": "\ud800"}, ANSWER], r"half of a surrogate pair"),
    "tool call": ([USER, ANSWER | {"tool_calls": [{"id": 1}]}], r'"messages\[1\]" has "tool_calls"'),
    "thoughts": ([USER, ANSWER | {"reasoning_content": "2 + 3"}], r'has "reasoning_content", which is not'),
}


class TestBadRows:
    @pytest.mark.parametrize("kind", BAD)
    def test_error_and_skip(self, tmp_path, kind):
        messages, reason = BAD[kind]
        path = write_jsonl(tmp_path / "a.jsonl", [{"messages": m} for m in ([USER, ANSWER], messages)])
        with pytest.raises(InputError, match=reason) as caught:
            list(read_rows(path))
        assert str(caught.value).startswith(f"{path}:2: ")
        assert 'on_bad_row="skip"' in str(caught.value)
        reader = read_rows(path, on_bad_row="skip")
        assert [row.place for row in reader] == [f"{path}:1"]
        assert reader.num_skipped == 1

    def test_an_output_that_disagrees(self, tmp_path):
        row = {"messages": [USER, ANSWER], "instruction": "q", "output": "7"}
        with pytest.raises(InputError, match=r"its \"output\" is '7', but its \"messages\" ends with '5'"):
            read(tmp_path, row)

    def test_several_turns_where_the_template_has_no_room(self, tmp_path):
        rows = [{"messages": [SYSTEM, USER, ANSWER, *AGAIN]}, {"messages": [USER, ANSWER]}]
        with pytest.raises(
            InputError, match=r"a.jsonl:1: .*\(system, user, assistant, user, assistant\), .*prompt=\"chat\""
        ):
            read(tmp_path, *rows, multi_turn=False)
        assert [row.output for row in read(tmp_path, *rows, multi_turn=False, on_bad_row="skip")] == ["5"]

    def test_a_conversation_under_another_name(self, tmp_path):
        with pytest.raises(InputError, match=r'perhaps fields\.messages="conversations"'):
            read(tmp_path, {"conversations": [{"from": "human", "value": "q"}]})


def test_one_mapping():
    assert row_of({"messages": [USER, ANSWER]}, "row 0").output == "5"
    assert contents(row_of({"instruction": "q", "input": "x", "output": "a"}, "")) == ("q", "x", "a")
    with pytest.raises(InputError, match=r'^row 3: its "messages" is empty'):
        row_of({"messages": []}, "row 3")


TEXT = st.text(min_size=1).filter(str.strip)
MESSAGE = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT)


@settings(max_examples=40, deadline=None)
@given(st.lists(MESSAGE, max_size=5), TEXT)
def test_text_passes_through_untouched(before, response):
    messages = [Message("user", "q"), *before, Message("assistant", response)]
    read_back = conversation([message._asdict() for message in messages], "messages")
    assert list(read_back) == messages
    texts = single_turn(read_back)
    assert (texts is None) == (len(messages) > 2)
