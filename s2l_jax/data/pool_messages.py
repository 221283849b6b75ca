"""Conversations as rows have them: lists of messages, each with a role and a content."""

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from s2l_jax.data.pool_fields import WEIGHTS, BadRow, encodable, spelt
from s2l_jax.data.pool_files import quoted, shortened

ROLES = ("system", "user", "assistant")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
# Parts of a message beside its content; leaving them out would change what was said. As `spelt` spells names.
_UNREAD = (
    *("toolcalls", "functioncall", "tools", "functions", "reasoningcontent", "reasoning", "thinking"),
    *("thought", "thoughts", "refusal", "image", "images", "video", "videos", "audio", "audios", "documents"),
)
_SWITCHES = ("loss",)  # as WEIGHTS where it is true or false; a number is a measured one
_MASKS = ("mask", "masked", "traindetail", "trainingdetail", "traindetails")
_WHOLE = (True, 1, "1", "1.0", "true", "True", "all")


class Message(NamedTuple):
    """One message of a conversation."""

    role: str  # one of ROLES
    content: str


def conversation(value: Any, name: str, ignore: Collection[str] = ()) -> tuple[Message, ...]:
    """The messages of a row; the last one, the assistant's, is the response.

    Args:
      value: a list of {"role": ..., "content": ...}, as OpenAI, TRL and most hub datasets have
        it, or of {"from": ..., "value": ...}, as ShareGPT has it. A content is text, or a list
        of {"type": "text", "text": ...}, which are joined. Or two texts, as the official S2L code reads
        them: the user's and the assistant's.
      name: of the field, for messages.
      ignore: names in messages that are passed over.

    Raises:
      BadRow: anything else, an unknown role, an empty content, no message of the user, a last message that
        is not the assistant's, or one that its maker left out of training (see `left_out` for others).
    """
    if not isinstance(value, list):
        raise BadRow(f'its "{name}" is not a list of messages but {type(value).__name__}: {shortened(value)}')
    if not value:
        raise BadRow(f'its "{name}" is empty')
    if all(isinstance(item, str) for item in value):
        if len(value) != 2:
            raise BadRow(
                f'its "{name}" are {len(value)} texts without roles; two are read, the user\'s and the '
                'assistant\'s: write more as {"role": ..., "content": ...}'
            )
        pair = enumerate(zip(("user", "assistant"), value, strict=True))
        return tuple(Message(role, _content(text, f"{name}[{place}]")) for place, (role, text) in pair)
    messages = tuple(_message(item, f"{name}[{number}]", ignore) for number, item in enumerate(value))
    if messages[-1].role != "assistant":
        raise BadRow(
            f'the last message of its "{name}", the response, must be the assistant\'s '
            f"and is the {messages[-1].role}'s"
        )
    if not any(message.role == "user" for message in messages):
        raise BadRow(f'its "{name}" has no message of the user before the response')
    if (mark := _mark(last := value[-1], ignore)) is not None:
        raise BadRow(
            f'its "{name}[{len(value) - 1}]", the response, has "{mark}": {shortened(last[mark])}, so it is '
            "not to be learned, or not as others are: take the row away, end it with a message that is, or "
            f'set fields.ignore="{mark}" to learn it'
        )
    return messages


def earlier_turns(value: Any, name: str, ignore: Collection[str] = ()) -> tuple[Message, ...]:
    """The messages of a history: a list of pairs [user, assistant], or of messages.

    Names of `ignore` in messages are passed over.

    Raises:
      BadRow: anything else, or a text that is empty.
    """
    if not isinstance(value, list):
        raise BadRow(
            f'its "{name}" is not a list of pairs but {type(value).__name__}: {shortened(value)}; '
            'set fields.history="" to leave it out'
        )
    messages: list[Message] = []
    for number, item in enumerate(value):
        where = f"{name}[{number}]"
        if isinstance(item, dict):
            messages.append(_message(item, where, ignore))
        elif isinstance(item, list) and len(item) == 2:
            pair = enumerate(zip(("user", "assistant"), item, strict=True))
            messages += [Message(role, _content(text, f"{where}[{place}]")) for place, (role, text) in pair]
        else:
            raise BadRow(f'its "{where}" is not a pair of user and assistant: {shortened(item)}')
    return tuple(messages)


def tool_schemas(value: Any, name: str) -> tuple[dict[str, Any], ...]:
    """The functions that a row's model may call: a list of schemas, or JSON text of one.

    Raises:
      BadRow: anything else.
    """
    if isinstance(value, str):
        value = _parsed_json(value, name) if value.strip() else []
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise BadRow(
            f'its "{name}" is not a list of functions but {type(value).__name__}: {shortened(value)}; '
            'set fields.tools="" to leave it out'
        )
    tools = [
        _parsed_json(item, f"{name}[{n}]") if isinstance(item, str) else item for n, item in enumerate(value)
    ]
    for number, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise BadRow(f'its "{name}[{number}]" is not the schema of a function: {shortened(tool)}')
    encodable(json.dumps(tools, ensure_ascii=False), f'its "{name}"')
    return tuple(tools)


def _parsed_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        fix = 'set fields.tools="" to leave it out'
        raise BadRow(f'its "{where}" is text that is not JSON: {shortened(text)}; {fix}') from None


def left_out(value: Sequence[Any], ignore: Collection[str] = ()) -> frozenset[int]:
    """The places of the messages that their maker left out of training, or would have count otherwise.

    `value` is a list of messages, or a history, whose pairs are two messages each.
    """
    found, place = set(), 0
    for item in value:
        if isinstance(item, dict) and _mark(item, ignore) is not None:
            found.add(place)
        place += 2 if isinstance(item, list) else 1
    return frozenset(found)


def _mark(item: dict[str, Any], ignore: Collection[str]) -> str | None:
    """The name in a message that says it is not to be learned, or not all of it as others are."""
    for name, value in item.items():
        if name in ignore or value is None:
            continue
        known_as = spelt(name)
        partly = (known_as in _MASKS and value) or (known_as in WEIGHTS and value not in _WHOLE)
        if partly or (known_as in _SWITCHES and value is False):
            return name
    return None


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


def _message(item: Any, where: str, ignore: Collection[str] = ()) -> Message:
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
    for name, value in item.items():
        if value and spelt(name) in _UNREAD and name not in ignore:
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
    if kind != "text":
        raise BadRow(f'its "{where}" is of type {shortened(kind)}; only parts of type "text" are read')
    if "text" not in part:
        raise BadRow(f'its "{where}" has no "text"; it has {quoted(part)}')
    if not isinstance(part["text"], str):
        raise BadRow(f'its "{where}.text" is not text but {type(part["text"]).__name__}')
    return part["text"]
