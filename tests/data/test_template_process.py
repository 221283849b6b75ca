"""Chat templates are rendered within limits, and what they leave out is found."""

import subprocess
import sys

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


def test_a_template_without_end_is_ended_where_a_profiler_ran():
    # In a process of its own, as one in which JAX's profiler has run is ended by a SIGPROF that it does not
    # ignore.
    program = f"""
import signal
from s2l_jax.data import template_process
signal.signal(signal.SIGPROF, signal.SIG_IGN)
template_process.SECONDS = 0.2
try:
    template_process.render_template({LOOP!r}, {HI!r}, variables={{}})
except template_process.TemplateError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Timeout: rendering took more than" in done.stdout


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


CODE = "def f(x):\n    if x:\n        return 1\n"
BLOCK = "    if x:\n        return 1\n    return 2"


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("change", ["replace('    ', ' ')", "replace('\n', ' ')", "replace('\n    ', '\n')"])
def test_white_space_that_the_template_changes(place, change):
    messages = list(LONG)
    messages[place] = (messages[place][0], CODE)
    row = row_with(*messages)
    template = CHATML.replace("{{ m.content }}", "{{ m.content | CHANGE }}")
    kept = make_tokenizer(KINDS["chatml"], template.replace("CHANGE", "trim"))
    assert CODE.strip() in "".join(render("chat", row, kept))
    with pytest.raises(InputError, match=r"^pool.jsonl:4: .*changes or (?:drops part|leaves out text)"):
        render("chat", row, make_tokenizer(KINDS["chatml"], template.replace("CHANGE", change)))


def test_an_indented_block_keeps_its_indentation():
    """Trimmed, its first line would stand to the left of the others."""
    row = row_with(("user", "q"), ("assistant", f"\n  \n{BLOCK}\n"))
    assert render("chat", row, make_tokenizer(KINDS["chatml"]))[1].startswith(f"\n  \n{BLOCK}")
    with pytest.raises(InputError, match=r"changes or drops part of the response"):
        render("chat", row, make_tokenizer(KINDS["llama3"]))
    line = row_with(("user", "  q"), ("assistant", " a\nb "))  # what is lost here says nothing
    assert render("chat", line, make_tokenizer(KINDS["llama3"]))[1] == "a\nb<|eot_id|>"


def test_thoughts_may_be_spaced_anew():
    row = row_with(("user", "q"), ("assistant", f"<think>hm</think>{BLOCK}"))
    assert f"hm\n</think>\n\n{BLOCK}" in render("chat", row, make_tokenizer(KINDS["thinking"]))[1]


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
        with pytest.raises(
            InputError, match=r"^pool.jsonl:4: .*leaves out part of the row's tools: 'get_time'"
        ):
            render("chat", self.ROW, make_tokenizer(KINDS["chatml"], template))

    @pytest.mark.parametrize(
        ("shown", "lost"),
        [
            ("{{ t.function.name }}", "'Tells the time', 'city', 'Where to'"),
            ("{{ t.function.name }}: {{ t.function.description }}", "'city', 'Where to', 'Oslo'"),
            ("{{ t.function.name }}{{ t.function.parameters.properties | list }}",
             "'Tells the time', 'Where to', 'Oslo'"),
        ],
    )  # fmt: skip
    def test_that_are_printed_in_part(self, shown, lost):
        """Their names alone are not enough to call them; and the text may stand in a message."""
        city = {"type": "string", "description": "Where to", "enum": ["Oslo"]}
        parameters = {"type": "object", "properties": {"city": city}, "required": ["city"]}
        described = {"name": "get_time", "description": "Tells the time", "parameters": parameters}
        row = row_with(
            ("user", "Where to? Oslo city. Tells the time."),
            ("assistant", "a"),
            tools=[{"type": "function", "function": described}],
        )
        whole = make_tokenizer(KINDS["chatml"], TOOLS + CHATML)
        assert "Tells the time" in render("chat", row, whole)[0]
        in_part = TOOLS.replace("{{ t | tojson }}", shown)
        with pytest.raises(InputError, match=rf"leaves out part of the row's tools: {lost}"):
            render("chat", row, make_tokenizer(KINDS["chatml"], in_part + CHATML))

    def test_may_be_written_in_another_way(self):
        """As signatures of functions, with types of their own; a line at a time."""
        parameter = {"type": "string", "description": 'Where "to"\nor <from>'}
        function = {"name": "f", "description": "D é", "parameters": {"properties": {"x": parameter}}}
        template = (
            "{% for t in tools %}def {{ t.name }}({% for name in t.parameters.properties %}{{ name }}: str"
            "{% endfor %}) # {{ t.description }}\n{% for p in t.parameters.properties.values() %}"
            "{{ p.description | replace('\n', '\n# ') }}{% endfor %}{% endfor %}"
        )
        row = row_with(("user", "q"), ("assistant", "a"), tools=[function])
        prompt, _ = render("chat", row, make_tokenizer(KINDS["chatml"], template + CHATML))
        assert prompt.startswith("def f(x: str) # D é")

    def test_are_for_the_template_that_the_tokeniser_has_for_them(self):
        tokenizer = make_tokenizer(KINDS["chatml"])
        tokenizer.chat_template = {"default": CHATML, "tool_use": TOOLS + CHATML}
        assert "get_time" in render("chat", self.ROW, tokenizer)[0]
