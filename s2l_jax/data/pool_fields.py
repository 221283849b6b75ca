"""Which field of a row holds what, and the text that a field holds."""

import dataclasses
import difflib
import re
from collections.abc import Iterator
from typing import Any

from s2l_jax.data.pool_files import quoted, shortened

_COMMON_NAMES = {
    "instruction": ("question", "prompt", "query", "problem", "findings"),
    "output": ("response", "answer", "completion", "solution", "target", "impression"),
    "id": ("uid", "index", "idx"),
    "messages": ("messages", "conversations", "conversation", "chat", "dialog", "dialogue"),
}


# What rows of other projects call a prompt's other parts; as `spelt` spells names.
_OTHER_NAMES = {
    "system": ("system", "systemprompt", "systemmessage", "systemmsg", "systeminstruction", "sysprompt"),
    "history": (
        *("history", "chathistory", "conversationhistory", "dialoghistory", "dialoguehistory"),
        *("previousturns", "priorturns", "pastturns"),
    ),
    "tools": ("tools", "functions", "availabletools", "toolschemas", "tooldefinitions"),
}
_INPUTS = ("input", "inputs", "context", "passage")
# What changes a prompt and is not read.
_MEDIA = re.compile("(image|img|picture|photo|video|audio)s?(url|path|file|filename)?s?")
_UNREAD = ("documents", "chattemplatekwargs")
_VERDICTS = ("label", "ktotag", "ktolabel", "desirable", "isdesirable")  # a label may be of another thing
_NO = (0, "0", "false", "False")
# How makers of data say that a response is not to be learned, or only some of it.
WEIGHTS = ("weight", "lossweight", "lossscale", "train", "training", "trainable", "trainonturn", "learn")


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Which field of a row holds what; "" for none, except for instruction and output."""

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    messages: str = "messages"  # in a row that has it, it stands for the three above
    source: str = "source"
    id: str = ""  # none: the id comes from the content
    system: str = "system"  # a system message before the others
    history: str = "history"  # earlier turns, in pairs
    tools: str = "tools"  # schemas of functions, for chat templates
    ignore: tuple[str, ...] = ()  # fields, of rows and of messages, whose loss is wanted

    def set_by_user(self) -> set[str]:
        """Optional fields under another name than the default, which some row must therefore have."""
        roles = ("input", "messages", "source", *_OTHER_NAMES)
        return {getattr(self, role) for role in roles} - {getattr(FieldMap, role) for role in roles} - {""}


class BadRow(Exception):
    """Why a row cannot be used."""


def spelt(name: str) -> str:
    """A field's name as all its spellings have it: system_prompt, systemPrompt and System-Prompt are one."""
    return re.sub(r"[\W_]", "", name).lower()


def check_unread(row: dict[str, Any], fields: FieldMap) -> None:
    """Find what a trainer would read in the row's other fields, and this program would leave out.

    Raises:
      BadRow: a part of the prompt under a name that no field of the map has, something beside text, or the
        mark of a bad answer; the fix is in the message.
    """
    mapped = {value for value in vars(fields).values() if isinstance(value, str)}
    for name, value in row.items():
        known_as = spelt(name)
        if name in mapped or name in fields.ignore:
            continue
        leave = f'fields.ignore="{name}" to leave it out'
        if known_as in _VERDICTS and (value is False or (known_as != "label" and value in _NO)):
            raise BadRow(
                f'its "{name}" is false, which marks a bad answer: take the row away, or set '
                f'fields.ignore="{name}" to learn it'
            )
        if known_as in WEIGHTS and value in (*_NO, "0.0"):
            raise BadRow(
                f'its "{name}" is {value}, so it is not to be learned: take the row away, or set '
                f'fields.ignore="{name}" to learn it'
            )
        if not value or (isinstance(value, str) and not value.strip()):
            continue
        if known_as in _UNREAD or _MEDIA.fullmatch(known_as):
            raise BadRow(f'has "{name}" beside its text, which is not read: set {leave}')
        for role, names in _OTHER_NAMES.items():
            if getattr(fields, role) and known_as in names and isinstance(value, str | list | dict):
                raise BadRow(
                    f'has "{name}", which is not read: set fields.{role}="{name}" to read it, or {leave}'
                )
        without_input = fields.input and not row.get(fields.input) and not row.get(fields.messages)
        if without_input and known_as in _INPUTS and isinstance(value, str):
            raise BadRow(f'has "{name}", which is not read: set fields.input="{name}" to read it, or {leave}')


def passed_over(row: dict[str, Any], fields: FieldMap) -> Iterator[str]:
    """The row's fields with something to read that no role of the map has, or that its messages stand for.

    Of numbers a weight alone: all rows are learned alike.
    """
    read = {value for value in vars(fields).values() if isinstance(value, str)}
    if fields.messages and row.get(fields.messages) is not None:
        read -= {fields.instruction, fields.input}
    for name, value in row.items():
        says = isinstance(value, str | list | dict) or (spelt(name) in WEIGHTS and value != 1)
        if name not in read and name not in fields.ignore and value and says:
            yield name


def field_text(row: dict[str, Any], role: str, name: str, required: bool = True) -> str:
    """The text of a field; "" for one that may be absent and is."""
    value = row.get(name)
    if isinstance(value, str):
        return encodable(value, f'its "{name}"')
    if value is None:
        if not required:
            return ""
        if name in row:
            raise BadRow(f'its "{name}" is null or NaN')
        raise BadRow(f'has no field "{name}"; it has {quoted(row)}; {_mapping_help(row, role, name)}')
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)  # as JSON writes it
    raise BadRow(f'its "{name}" is not text but {type(value).__name__}: {shortened(value)}')


def encodable(text: str, what: str) -> str:
    """`text`, when it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{what} has half of a surrogate pair: {shortened(text)}") from None
    return text


def _mapping_help(row: dict[str, Any], role: str, name: str) -> str:
    for field, value in row.items():
        if field.lower() in _COMMON_NAMES["messages"] and isinstance(value, list):
            return f'perhaps fields.messages="{field}"'
    near = difflib.get_close_matches(name, list(row), n=1)
    near += [field for field in row if field.lower() in _COMMON_NAMES[role]]
    if near:
        return f'perhaps fields.{role}="{near[0]}"'
    return f"set fields.{role} to the one that holds the {role}"
