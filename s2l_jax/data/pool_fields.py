"""Which field of a row holds what, and the text that a field holds."""

import dataclasses
import difflib
from typing import Any

from s2l_jax.data.pool_files import quoted, shortened

_COMMON_NAMES = {
    "instruction": ("question", "prompt", "query", "problem", "findings"),
    "output": ("response", "answer", "completion", "solution", "target", "impression"),
    "id": ("uid", "index", "idx"),
    "messages": ("messages", "conversations", "conversation", "chat", "dialog", "dialogue"),
}


# What rows of other projects call a prompt's other parts.
_OTHER_NAMES = {
    "system": ("system", "system_prompt", "system_message", "system_instruction", "sys_prompt"),
    "history": ("history", "chat_history", "conversation_history", "dialog_history", "dialogue_history"),
    "tools": ("tools", "functions", "available_tools", "tool_schemas"),
}
_INPUTS = ("input", "context")
# What changes a prompt and is not read.
_UNREAD = (
    *("image", "images", "image_url", "image_urls", "video", "videos", "audio", "audios"),
    *("documents", "chat_template_kwargs"),
)
_VERDICTS = ("label", "kto_tag", "kto_label", "desirable")  # of the response; a label may be of another thing
_NO = (0, "0", "false", "False")


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


def check_unread(row: dict[str, Any], fields: FieldMap) -> None:
    """Find what a trainer would read in the row's other fields, and this program would leave out.

    Raises:
      BadRow: a part of the prompt under a name that no field of the map has, something beside text, or the
        mark of a bad answer; the fix is in the message.
    """
    mapped = {value for value in vars(fields).values() if isinstance(value, str)}
    for name, value in row.items():
        lowered = name.lower()
        if name in mapped or name in fields.ignore:
            continue
        leave = f'fields.ignore="{name}" to leave it out'
        if lowered in _VERDICTS and (value is False or (lowered != "label" and value in _NO)):
            raise BadRow(
                f'its "{name}" is false, which marks a bad answer: take the row away, or set '
                f'fields.ignore="{name}" to learn it'
            )
        if not value or (isinstance(value, str) and not value.strip()):
            continue
        if lowered in _UNREAD:
            raise BadRow(f'has "{name}" beside its text, which is not read: set {leave}')
        for role, names in _OTHER_NAMES.items():
            if getattr(fields, role) and lowered in names and isinstance(value, str | list | dict):
                raise BadRow(
                    f'has "{name}", which is not read: set fields.{role}="{name}" to read it, or {leave}'
                )
        without_input = fields.input and not row.get(fields.input) and not row.get(fields.messages)
        if without_input and lowered in _INPUTS and isinstance(value, str):
            raise BadRow(f'has "{name}", which is not read: set fields.input="{name}" to read it, or {leave}')


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
