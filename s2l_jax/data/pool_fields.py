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


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Which field of a row holds what; "" for none, except for instruction and output."""

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    messages: str = "messages"  # in a row that has it, it stands for the three above
    source: str = "source"
    id: str = ""  # none: the id comes from the content

    def set_by_user(self) -> set[str]:
        """Optional fields under another name than the default, which some row must therefore have."""
        roles = ("input", "messages", "source")
        return {getattr(self, role) for role in roles} - {getattr(FieldMap, role) for role in roles} - {""}


class BadRow(Exception):
    """Why a row cannot be used."""


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
