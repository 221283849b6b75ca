"""Conversations as rows have them: lists of messages, each with a role and a content."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from s2l_jax.data.pool_fields import BadRow, encodable
from s2l_jax.data.pool_files import quoted, shortened

ROLES = ("system", "user", "assistant")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
# Parts of a message beside its content; leaving them out would change what was said.
_UNREAD = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")


class Message(NamedTuple):
    """One message of a conversation."""

    role: str  # one of ROLES
    content: str


def conversation(value: Any, name: str) -> tuple[Message, ...]:
    """The messages of a row; the last one, the assistant's, is the response.

    Args:
      value: a list of {"role": ..., "content": ...}, as OpenAI, TRL and most hub datasets have
        it, or of {"from": ..., "value": ...}, as ShareGPT has it. A content is text, or a list
        of {"type": "text", "text": ...}, which are joined.
      name: of the field, for messages.

    Raises:
      BadRow: anything else, an unknown role, an empty content, no message of the user, or a last
        message that is not the assistant's.
    """
    if not isinstance(value, list):
        raise BadRow(f'its "{name}" is not a list of messages but {type(value).__name__}: {shortened(value)}')
    if not value:
        raise BadRow(f'its "{name}" is empty')
    messages = tuple(_message(item, f"{name}[{number}]") for number, item in enumerate(value))
    if messages[-1].role != "assistant":
        raise BadRow(
            f'the last message of its "{name}", the response, must be the assistant\'s '
            f"and is the {messages[-1].role}'s"
        )
    if not any(message.role == "user" for message in messages):
        raise BadRow(f'its "{name}" has no message of the user before the response')
    return messages


def single_turn(messages: Sequence[Message]) -> tuple[str, str] | None:
    """Instruction and input that say what comes before the response, or None where none can.

    One message of the user is the instruction. A system message before it is the instruction
    instead, and the user's message its input.
    """
    roles = [message.role for message in messages[:-1]]
    if roles == ["user"]:
        return messages[0].content, ""
    if roles == ["system", "user"]:
        return messages[0].content, messages[1].content
    return None


def one_turn(instruction: str, input: str, output: str) -> tuple[Message, ...]:
    """The conversation that stands for a row without messages; an empty line parts instruction and input."""
    request = f"{instruction}\n\n{input}" if input else instruction
    return Message("user", request), Message("assistant", output)


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise BadRow(f'its "{where}" is not a message but {type(item).__name__}: {shortened(item)}')
    names = ("from", "value") if "from" in item and "role" not in item else ("role", "content")
    for name in names:
        if name not in item:
            raise BadRow(f'its "{where}" has no "{name}"; it has {quoted(item) or "nothing"}')
    role = item[names[0]]
    role = _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise BadRow(
            f'its "{where}" is from {shortened(item[names[0]])}; roles that are known are {", ".join(ROLES)}'
        )
    for name in _UNREAD:
        if item.get(name):
            raise BadRow(f'its "{where}" has "{name}", which is not read: put it into the content as text')
    return Message(role, _content(item[names[1]], f"{where}.{names[1]}"))


def _content(value: Any, where: str) -> str:
    if isinstance(value, list):
        value = "".join(_part(part, f"{where}[{number}]") for number, part in enumerate(value))
    if not isinstance(value, str):
        raise BadRow(f'its "{where}" is not text but {type(value).__name__}: {shortened(value)}')
    if not value.strip():
        raise BadRow(f'its "{where}" is empty: {shortened(value)}')
    return encodable(value, f'its "{where}"')


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind != "text" or not isinstance(part.get("text"), str):
        raise BadRow(f'its "{where}" is of type {shortened(kind)}; only parts of type "text" are read')
    return part["text"]
