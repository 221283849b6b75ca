"""The tokeniser's own chat template: the prompt and the response of a conversation in its words."""

import functools
import json
from typing import Any

from s2l_jax.data.pool import PoolRow
from s2l_jax.errors import InputError

CHAT = "chat"

# A template that opens the answer with a block of thought leaves it out, or closes it, when asked
# to; an answer that brings thoughts of its own needs the template as it is.
_THINKING: tuple[dict[str, Any], ...] = ({"enable_thinking": False}, {})
_PROBE = "Zq7"  # an answer that no template spells

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
      InputError: a tokeniser without a template, a template that refuses the messages, one whose generation
        prompt does not begin the turn it makes of the response, or one that drops part of the response.
    """
    messages = [message._asdict() for message in row.conversation]
    for options in _THINKING:
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
    if _squeezed(row.output) not in _squeezed(response):
        raise InputError(
            f"{_at(row.place)}the chat template of the tokeniser {_name(tokenizer)} changes or drops part "
            f"of the response {row.output[:60]!r}. Correct the row or the template, or choose another "
            "tokenize.prompt."
        )
    return prompt, response.rstrip("\n")


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
    return json.dumps([_template(tokenizer), tokenizer.special_tokens_map], sort_keys=True, default=str)


def _apply(tokenizer: Any, messages: list[dict[str, str]], place: str, **options: Any) -> str:
    template = _dated(_template(tokenizer))

    def render(messages: list[dict[str, str]]) -> str:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)

    try:
        return render(messages)
    except Exception as error:  # a template is a program: what it raises is not known
        fix = "Correct the row's messages, or choose another tokenize.prompt."
        others = [message for message in messages if message["role"] != "system"]
        if len(others) < len(messages):
            try:
                render(others)
                fix = (
                    "It takes the messages without those of the system: put their text at the beginning "
                    "of the user's first message, or choose another tokenize.prompt."
                )
            except Exception:
                pass
        raise InputError(
            f"{_at(place)}the chat template of the tokeniser {_name(tokenizer)} refuses the messages "
            f"({type(error).__name__}: {error}). {fix}"
        ) from error


def _template(tokenizer: Any) -> str:
    try:
        return tokenizer.get_chat_template()
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


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _name(tokenizer: Any) -> str:
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _at(place: str) -> str:
    return f"{place}: " if place else ""
