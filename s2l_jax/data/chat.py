"""The tokeniser's own chat template: the prompt and the response of a conversation in its words."""

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from s2l_jax.data.pool import PoolRow
from s2l_jax.data.template_process import TemplateError, render_template
from s2l_jax.errors import InputError

CHAT = "chat"

# A template that opens the answer with a block of thought leaves it out, or closes it, when asked
# to; an answer that brings thoughts of its own needs the template as it is.
_THINKING: tuple[dict[str, Any], ...] = ({"enable_thinking": False}, {})
_PROBE = "Zq7"  # an answer that no template spells
_THOUGHTS = re.compile(r"(</?think>)")
_STRUCTURE = (
    "type",
    "format",
    "title",
    "$ref",
    "$schema",
    "$id",
)  # of a tool: templates spell these their way

# What strftime_now gives: 26 July 2024, the date that Llama 3.1's template falls back to. With
# today's date the same row would be other tokens tomorrow.
_DATE = {
    "%Y": "2024", "%y": "24", "%m": "07", "%B": "July", "%b": "Jul", "%d": "26", "%e": "26", "%-d": "26",
    "%A": "Friday", "%a": "Fri", "%j": "208", "%F": "2024-07-26", "%H": "00", "%I": "12", "%M": "00",
    "%S": "00", "%p": "AM", "%T": "00:00:00",
}  # fmt: skip


def render_chat(tokenizer: Any, row: PoolRow) -> tuple[str, str]:
    """The prompt and the response of a row, which together are what the template makes of it all.

    The prompt is everything before the last message, earlier turns of the assistant included, and
    the generation prompt. The response is the rest, without line ends at its end: the content and
    what the template closes a turn of the assistant with. A row without messages is one message of
    the user (the instruction, an empty line and the input) and the response.

    Raises:
      InputError: a tokeniser without a template, a template that refuses the messages or takes too long,
        one whose generation prompt does not begin the turn it makes of the response, or one that drops part
        of the response, of another message or of the tools.
    """
    messages = [message._asdict() for message in row.conversation]
    for options in _THINKING:
        options = {"tools": row.tools, **options}
        prompt = _apply(tokenizer, messages[:-1], row.place, add_generation_prompt=True, **options)
        whole = _apply(tokenizer, messages, row.place, **options)
        if whole.startswith(prompt):
            break
    else:
        raise InputError(
            f"{_at(row.place)}the chat template of the tokeniser {_name(tokenizer)} writes "
            f"{prompt[-40:]!r} for the model to go on from, but does not begin the answer of the whole "
            "conversation with it: training and generation would differ. Correct the template, or "
            "choose another tokenize.prompt."
        )
    response = whole[len(prompt) :]
    if any(part not in response for part in _parts(row.output)):
        raise InputError(
            f"{_at(row.place)}the chat template of the tokeniser {_name(tokenizer)} changes or drops part "
            f"of the response {row.output[:60]!r}. Correct the row or the template, or choose another "
            "tokenize.prompt."
        )
    _check_all_said(tokenizer, row, whole, options)
    return prompt, response.rstrip("\n")


def render_turns(tokenizer: Any, row: PoolRow) -> tuple[str, ...]:
    """A conversation as prompt, response, prompt, response and so on: what `render_chat` gives, with every
    answer of the assistant to the user as a response.

    An answer begins where the model would have had to begin it after the messages before, and ends with what
    closes it: the marks that the template closes the last response with, as far as they follow. Those in
    `row.unlearned` are no responses.

    Raises:
      InputError: as `render_chat`, or a template that begins an earlier answer in another way than it asks
        the model for one.
    """
    prompt, response = render_chat(tokenizer, row)
    messages = [message._asdict() for message in row.conversation]
    closing = tokenizer(response.rpartition(_parts(row.output)[-1])[2], add_special_tokens=False)["input_ids"]
    marks = [mark for token in closing if (mark := tokenizer.decode([token]).strip())]
    places = [0]
    for number, message in enumerate(row.conversation[:-1]):
        asked = any(before.role == "user" for before in row.conversation[:number])
        if message.role != "assistant" or not asked or number in row.unlearned:
            continue
        for options in _THINKING:
            options = {"tools": row.tools, **options}
            before = _apply(tokenizer, messages[:number], row.place, add_generation_prompt=True, **options)
            if prompt.startswith(before) and len(before) >= places[-1]:
                break
        else:
            raise InputError(
                f"{_at(row.place)}the chat template of the tokeniser {_name(tokenizer)} does not begin "
                f"message {number} (from 0), the assistant's, as it would have the model begin it there: set "
                "tokenize.turns='last', or correct the template."
            )
        end = len(before)
        for part in _parts(message.content):
            end = prompt.index(part, end) + len(part)
        for mark in marks:  # some templates write one more after the last answer
            after = prompt[end:].lstrip()
            if not after.startswith(mark):
                break
            end = len(prompt) - len(after) + len(mark)
        places += [len(before), end]
    ends = [*places[1:], len(prompt)]
    return (*(prompt[start:end] for start, end in zip(places, ends, strict=True)), response)


def closing_tokens(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that the template ends a turn of the assistant with, such as <|im_end|>.

    Empty for a template that ends it with plain text or not at all.

    Raises:
      InputError: a tokeniser without a template, or a template that cannot make prompts.
    """
    row = PoolRow(0, "Hello", "", _PROBE, "", {}, "")
    prompt, response = render_chat(tokenizer, row)
    opening, _, closing = response.partition(_PROBE)
    if opening.strip() and prompt == _apply(tokenizer, [row.conversation[0]._asdict()], ""):
        raise InputError(
            f"the chat template of the tokeniser {_name(tokenizer)} pays no heed to "
            f"add_generation_prompt, so that the model would have to write {opening!r} by itself. Add "
            "it to the template, or choose another tokenize.prompt."
        )
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"] if closing else []
    # Some vocabularies have runs of spaces added to them, which close nothing.
    added = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.content.strip()}
    marks = added | set(tokenizer.all_special_ids)
    return tuple(dict.fromkeys(token for token in ids if token in marks))


def template_identity(tokenizer: Any) -> str:
    """What the texts depend on beside the rows: the template and the tokens it may name."""
    templates = [_template(tokenizer)]
    if (with_tools := _template(tokenizer, tools=True)) not in templates:
        templates.append(with_tools)
    return json.dumps([*templates, tokenizer.special_tokens_map], sort_keys=True, default=str)


def _check_all_said(tokenizer: Any, row: PoolRow, whole: str, options: dict[str, Any]) -> None:
    """Look for the text of every message, and for every tool, in what the template made of them all."""
    roles = tuple(message.role for message in row.conversation)
    tokens = json.dumps(tokenizer.special_tokens_map, default=str)
    template = _template(tokenizer, tools=bool(row.tools))
    lost = set(_unsaid(template, tokens, roles, json.dumps(options)))
    rest = whole
    numbered = [(part, n) for n, message in enumerate(row.conversation) for part in _parts(message.content)]
    # The longest first: some are part of others.
    for part, number in sorted(numbered, key=lambda found: -len(found[0])):
        if part not in rest:
            lost.add(number)
        rest = rest.replace(part, "\0", 1)
    if lost:
        number = min(lost)
        message = row.conversation[number]
        raise InputError(
            f"{_at(row.place)}the chat template of the tokeniser {_name(tokenizer)} changes or leaves out "
            f"text of message {number} (from 0), the {message.role}'s: {message.content[:60]!r}. Put it "
            "where the template prints it, correct the template, or choose another tokenize.prompt."
        )
    if row.tools:
        _check_tools_said(tokenizer, row, options)


def _check_tools_said(tokenizer: Any, row: PoolRow, options: dict[str, Any]) -> None:
    """Put other texts in the place of all that the tools say, and look for those in what is rendered."""
    probes: dict[str, str] = {}
    tools = [_probed(tool, "", probes) for tool in row.tools]
    messages = [message._asdict() for message in row.conversation]
    text = _apply(tokenizer, messages, row.place, **options | {"tools": tools})
    lost = [said for said, probe in probes.items() if probe not in text]
    if lost:
        raise InputError(
            f"{_at(row.place)}the chat template of the tokeniser {_name(tokenizer)} leaves out part of the "
            f"row's tools: {', '.join(repr(said[:30]) for said in lost[:3])}. Use one that prints them, put "
            'them into the text of a message, or set pool.fields.tools="" to leave them out.'
        )


def _probed(value: Any, key: str, probes: dict[str, str]) -> Any:
    """A part of a tool's schema, found under `key`, with a probe for each text and name in it."""
    if isinstance(value, dict):
        names = {name: _probed(name, "", probes) if key == "properties" else name for name in value}
        return {names[name]: _probed(part, name, probes) for name, part in value.items()}
    if isinstance(value, list):
        return [_probed(part, key, probes) for part in value]
    if isinstance(value, str) and value.strip() and key not in _STRUCTURE:
        return probes.setdefault(value, f"Zq{len(probes)}x")
    return value


@functools.lru_cache(maxsize=4096)
def _unsaid(template: str, tokens: str, roles: tuple[str, ...], options: str) -> tuple[int, ...]:
    """The places in a sequence of roles whose messages the template passes over, whatever they say."""
    probes = [f"Zq{number}x" for number in range(len(roles))]
    messages = [{"role": role, "content": probe} for role, probe in zip(roles, probes, strict=True)]
    variables = json.loads(tokens) | json.loads(options)
    tools = variables.pop("tools")
    try:
        text = render_template(_dated(template), messages, tools=tools, variables=variables)
    except TemplateError:
        return ()  # it wants other texts; those of the row are looked for one by one
    return tuple(number for number, probe in enumerate(probes) if probe not in text)


def _apply(
    tokenizer: Any,
    messages: list[dict[str, str]],
    place: str,
    tools: Sequence[dict[str, Any]] = (),
    **options: Any,
) -> str:
    template = _dated(_template(tokenizer, tools=bool(tools)))
    variables = tokenizer.special_tokens_map | options

    def render(messages: list[dict[str, str]]) -> str:
        return render_template(template, messages, tools=tools, variables=variables)

    try:
        return render(messages)
    except TemplateError as error:
        fix = "Correct the row's messages, or choose another tokenize.prompt."
        others = [message for message in messages if message["role"] != "system"]
        if len(others) < len(messages):
            try:
                render(others)
                fix = (
                    "It takes the messages without those of the system: put their text at the beginning "
                    "of the user's first message, or choose another tokenize.prompt."
                )
            except TemplateError:
                pass
        raise InputError(
            f"{_at(place)}the chat template of the tokeniser {_name(tokenizer)} refuses the messages "
            f"({error}). {fix}"
        ) from error


def _template(tokenizer: Any, tools: bool = False) -> str:
    """The template; some tokenisers have one of its own for rows with tools."""
    try:
        return tokenizer.get_chat_template(tools=[] if tools else None)
    except ValueError as error:
        raise InputError(
            f"tokenize.prompt={CHAT!r} needs a chat template, and the tokeniser {_name(tokenizer)} has "
            "none: put one as chat_template.jinja beside its tokenizer.json, or choose another "
            "tokenize.prompt."
        ) from error


@functools.lru_cache(maxsize=8)
def _dated(template: str) -> str:
    """`template` with strftime_now, where it calls it, giving a date that does not change."""
    if "strftime_now" not in template:
        return template
    filters = "".join(f" | replace({code!r}, {text!r})" for code, text in _DATE.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{filters} }}}}{{% endmacro +%}}{template}"


def _parts(text: str) -> list[str]:
    """What of a text a template may not change: all but white space at its ends and around thoughts.

    Of an indented block the first line's indentation counts too: without it the others would be another code.
    """
    parts = []
    for part in _THOUGHTS.split(text):
        lines = [line for line in part.split("\n") if line.strip()]
        is_block = len(lines) > 1 and all(line[0].isspace() for line in lines)
        parts.append(part[part.index(lines[0]) :].rstrip() if is_block else part.strip())
    return [part for part in parts if part]


def _name(tokenizer: Any) -> str:
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _at(place: str) -> str:
    return f"{place}: " if place else ""
