"""Chat templates are rendered within limits, and what they leave out is found."""

import pytest

from s2l_jax.data import template_process
from s2l_jax.data.pool import row_of
from s2l_jax.data.prompts import render
from s2l_jax.data.template_process import TemplateError, render_template
from s2l_jax.errors import InputError
from tests.data.test_chat import CHATML, KINDS, make_tokenizer

HI = [{"role": "user", "content": "Hi"}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TOOLS = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {}}}


@pytest.mark.parametrize("template", [LOOP, "{{ 10 ** (10 ** 9) }}"])
def test_a_template_without_end_is_ended(template, monkeypatch):
    monkeypatch.setattr(template_process, "SECONDS", 0.2)
    with pytest.raises(TemplateError, match="Timeout: rendering took more than"):
        render_template(template, HI, variables={})
    assert render_template("{{ messages[0].content }}", HI, variables={}) == "Hi"  # in a new process


def test_a_template_that_takes_all_memory():
    with pytest.raises(TemplateError, match="MemoryError"):
        render_template("{{ 'a' * 10 ** 11 }}", HI, variables={})


def test_a_row_of_such_a_template_is_named(monkeypatch):
    monkeypatch.setattr(template_process, "SECONDS", 0.2)
    row = row_of({"instruction": "q", "output": "a"}, "pool.jsonl:3")
    with pytest.raises(InputError, match=r"^pool.jsonl:3: .*\(Timeout: rendering took more than 0.2 s"):
        render("chat", row, make_tokenizer(KINDS["chatml"], LOOP + CHATML))


def row_with(*messages, **more):
    talk = [{"role": role, "content": content} for role, content in messages]
    return row_of({"messages": talk, **more}, "pool.jsonl:4")


NO_SYSTEM = "{% if m.role != 'system' %}"
NO_HISTORY = "{% if loop.index0 > 1 or messages | length < 3 %}"
LED = [("system", "s"), ("user", "q"), ("assistant", "a")]
SAME = [("system", "q"), ("user", "q"), ("assistant", "a")]  # the text of a lost message stands elsewhere
LONG = [("user", "first"), ("assistant", "b"), ("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    ("only", "messages", "said"),
    [
        (NO_SYSTEM, LED, "the system's: 's'"),
        (NO_SYSTEM, SAME, "the system's: 'q'"),
        (NO_HISTORY, LONG, "the user's: 'first'"),
    ],
)
def test_a_message_that_the_template_leaves_out(only, messages, said):
    template = CHATML.replace("{% for m in messages %}", "{% for m in messages %}" + only)
    template = template.replace("{% endfor %}", "{% endif %}{% endfor %}", 1)
    where = rf"^pool.jsonl:4: .*changes or leaves out text of message 0 \(from 0\), {said}"
    with pytest.raises(InputError, match=where):
        render("chat", row_with(*messages), make_tokenizer(KINDS["chatml"], template))


def test_text_that_the_template_changes():
    thoughts = [("user", "q"), ("assistant", "<think>hm</think>b"), ("user", "r"), ("assistant", "a")]
    with pytest.raises(
        InputError, match=r"leaves out text of message 1 \(from 0\), the assistant's: '<think>hm"
    ):
        render("chat", row_with(*thoughts), make_tokenizer(KINDS["thinking"]))


def test_moved_text_is_not_lost():
    """As Mistral's, which puts the system message before the last one of the user."""
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<u>{% if loop.index0 == messages | length - 1 or "
        "loop.index0 == messages | length - 2 %}{{ messages[0].content }}\n{% endif %}{{ m.content }}"
        "{% elif m.role == 'assistant' %}<a>{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<a>{% endif %}"
    )
    row = row_with(("system", "s y s"), ("user", "q"), ("assistant", "b"), ("user", "r"), ("assistant", "a"))
    prompt, _ = render("chat", row, make_tokenizer(KINDS["chatml"], template))
    assert prompt == "<u>q<a>b<u>s y s\nr<a>"


class TestTools:
    ROW = row_with(("user", "q"), ("assistant", "a"), tools=[TOOL])

    def test_are_given_to_a_template_that_takes_them(self):
        prompt, _ = render("chat", self.ROW, make_tokenizer(KINDS["chatml"], TOOLS + CHATML))
        assert prompt.startswith('{"type": "function", "function": {"name": "get_time"')

    @pytest.mark.parametrize("template", [CHATML, "{% if tools %}You have tools.{% endif %}" + CHATML])
    def test_are_missed_in_one_that_does_not(self, template):
        with pytest.raises(InputError, match=r"^pool.jsonl:4: .*leaves out tools of the row \(get_time\)"):
            render("chat", self.ROW, make_tokenizer(KINDS["chatml"], template))

    def test_are_for_the_template_that_the_tokeniser_has_for_them(self):
        tokenizer = make_tokenizer(KINDS["chatml"])
        tokenizer.chat_template = {"default": CHATML, "tool_use": TOOLS + CHATML}
        assert "get_time" in render("chat", self.ROW, tokenizer)[0]
