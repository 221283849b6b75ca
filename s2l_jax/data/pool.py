"""Reads a pool of instruction data into one schema and names the rows that do not fit it."""

import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from s2l_jax.data.pool_fields import BadRow, FieldMap, check_unread, field_text
from s2l_jax.data.pool_files import RawRow, quoted, shortened
from s2l_jax.data.pool_messages import (
    Message,
    conversation,
    earlier_turns,
    left_out,
    one_turn,
    single_turn,
    tool_schemas,
)
from s2l_jax.data.pool_sources import Source, find_sources
from s2l_jax.data.row_ids import RowIds, joined
from s2l_jax.errors import InputError

_log = logging.getLogger(__name__)

MAX_LISTED = 10_000  # skipped rows that are listed one by one; all are counted


@dataclasses.dataclass(frozen=True)
class PoolRow:
    """One row of the pool."""

    id: int  # uint64, distinct within the pool
    instruction: str  # "" where the row is a conversation of several turns
    input: str  # "" where the row has none
    output: str  # the response
    source: str  # "all" where the row has none
    original: dict[str, Any]  # the row's JSON as it came
    place: str  # file and line; where there are no lines, the row's number from 1
    messages: tuple[Message, ...] = ()  # of a row that has them; the last one is the response
    tools: tuple[dict[str, Any], ...] = ()  # schemas of functions, for chat templates
    unlearned: frozenset[int] = frozenset()  # places of earlier messages that its maker left out of training

    @property
    def conversation(self) -> tuple[Message, ...]:
        """Its messages, or what stands for them in a row that has none."""
        return self.messages or one_turn(self.instruction, self.input, self.output)


def _accept(row: PoolRow) -> None:
    """Find nothing bad in a row."""


@dataclasses.dataclass(eq=False)
class RowReader:
    """Iterates over the rows of a pool, reading as it goes; each iteration starts afresh.

    After an iteration `num_skipped` counts the rows left out and `skipped` lists (place, reason)
    for the first MAX_LISTED of them.

    Iterating raises InputError for a bad row under on_bad_row="error", for a pool without rows or
    with bad ones only, for two rows with one value of `fields.id`, for an input, messages or source
    field that was set and that no row has, and for a source that cannot be read.
    """

    sources: Sequence[Source]
    name: str
    limit: int
    fields: FieldMap
    skip: bool
    multi_turn: bool
    check: Callable[[PoolRow], None] = _accept
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    num_skipped: int = 0

    def __iter__(self) -> Iterator[PoolRow]:
        self.skipped, self.num_skipped = [], 0
        ids = RowIds()
        unseen = self.fields.set_by_user()
        num_rows = 0
        for row, content in self._good_rows(self._note_bad_row):
            id_, repeated = ids.assign(content)
            if repeated and self.fields.id:
                self._refuse_repeated_id(content, row.place)
            unseen.difference_update(row.original)
            yield dataclasses.replace(row, id=id_)
            num_rows += 1
            if num_rows == self.limit:
                break
        if not num_rows:
            self._refuse_empty_pool()
        for field in sorted(unseen):
            lacks = f'none of the {num_rows} rows of {self.name} has the field "{field}" that fields names'
            if num_rows == self.limit:  # it may be in those that were not read
                _log.warning("%s; more are not read, by limit", lacks)
                continue
            raise InputError(
                f'{lacks}; the last one has {quoted(row.original)}; correct it, or set it to "" for none'
            )

    def _good_rows(self, on_bad_row: Callable[[str, str], None]) -> Iterator[tuple[PoolRow, bytes]]:
        for raw in itertools.chain.from_iterable(source() for source in self.sources):
            try:
                row = _parsed(raw, self.fields, self.multi_turn)
                self.check(row[0])
            except BadRow as bad:
                on_bad_row(raw.place, str(bad))
            else:
                yield row

    def _note_bad_row(self, place: str, reason: str) -> None:
        if not self.skip:
            raise InputError(
                f"{place}: {reason}. "
                'Correct the row, or set on_bad_row="skip" to leave out and count such rows'
            )
        self.num_skipped += 1
        if len(self.skipped) < MAX_LISTED:
            self.skipped.append((place, reason))

    def _refuse_repeated_id(self, given: bytes, place: str) -> None:
        # The places of all rows would take too much memory: read again to find the first one.
        for row, content in self._good_rows(lambda *_: None):
            if row.place == place:
                return  # another value with the same hash, which `RowIds` has told apart
            if content == given:
                raise InputError(
                    f'{place}: its "{self.fields.id}" is {shortened(given.decode())}, and so is that of '
                    f'{row.place}; make them distinct, or set fields.id="" for ids from the content'
                )

    def _refuse_empty_pool(self) -> None:
        if not self.num_skipped:
            raise InputError(f"the pool {self.name} has no rows; check its path and split")
        place, reason = self.skipped[0]
        raise InputError(
            f"all {self.num_skipped} rows of {self.name} were skipped; the first, {place}: {reason}"
        )


def read_rows(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    split: str = "train",
    limit: int = 0,
    fields: FieldMap | None = None,
    on_bad_row: str = "error",
    multi_turn: bool = True,
    check: Callable[[PoolRow], None] = _accept,
) -> RowReader:
    """Open a pool, to be read row by row; only the ids stay in memory.

    Args:
      path: a file (remote ones such as gs:// too), several with commas between, a glob (read in
        sorted order), a directory that `datasets` saved, ORG/NAME or ORG/NAME:CONFIG on the
        hub, tfds:NAME or tfds:DIRECTORY, or "synthetic" for the embedded pool.
      format: "auto", "jsonl", "json", "parquet", "hub", "tfds" or "synthetic". Files in the first
        two may end in .gz. A json file is parsed whole, all others are streamed.
      split: of a hub, saved or TFDS dataset.
      limit: rows to read, bad ones not counted; 0 for all.
      fields: which field holds what; default `FieldMap()`.
      on_bad_row: "error" raises at the first bad row, "skip" leaves them out. Bad is a row that
        is not a JSON object, lacks the instruction, output or id field, holds anything but
        text or a number in a mapped field, whose output is null, empty or blank, or which has what
        `pool_fields.check_unread` finds; of a row with messages see `pool_messages.conversation`.
        Numbers become their JSON text.
      multi_turn: whether a row's messages may have several turns before the response, and tools; if
        not, such a row is bad. Only a chat template has room for them.
      check: called with each row, still without its id; raises `pool_fields.BadRow` for one that is bad.

    Returns:
      A reader to iterate over. A row's id is the 8-byte BLAKE2b hash of its instruction, input,
      output and source, of its messages and source, or of its `fields.id`: it stays when rows
      move, come or go. Rows that repeat a content are numbered, see `RowIds`.

    Raises:
      InputError: a value out of range or a missing file; RowReader says what iterating raises.
    """
    path, fields = os.fspath(path), fields or FieldMap()
    if on_bad_row not in ("error", "skip"):
        raise InputError(f"on_bad_row={on_bad_row!r} is not known; choose error or skip")
    if limit < 0:
        raise InputError(f"limit={limit} is negative; give a number of rows, or 0 for all")
    for role in ("instruction", "output"):
        if not getattr(fields, role):
            raise InputError(f"fields.{role} is empty; name the field that holds the {role}")
    sources = find_sources(path, format, split)
    return RowReader(sources, path or format, limit, fields, on_bad_row == "skip", multi_turn, check)


def row_of(value: dict[str, Any], place: str, fields: FieldMap | None = None) -> PoolRow:
    """One mapping as a row, without an id.

    Raises:
      InputError: a bad row, as in `read_rows`; names `place`.
    """
    try:
        return _parsed(RawRow(place, value), fields or FieldMap(), multi_turn=True)[0]
    except BadRow as bad:
        raise InputError(f"{place}: {bad}") from None


def _parsed(raw: RawRow, fields: FieldMap, multi_turn: bool) -> tuple[PoolRow, bytes]:
    """A row, without an id, and the content that its id is made from."""
    if raw.problem:
        raise BadRow(raw.problem)
    row = raw.value
    if not isinstance(row, dict):
        raise BadRow(f"is not a JSON object but {type(row).__name__}: {shortened(row)}")
    check_unread(row, fields)
    before, unlearned = _messages_before(row, fields)
    tools = tool_schemas(row.get(fields.tools) or [], fields.tools) if fields.tools else ()
    if tools and not multi_turn:
        raise BadRow(
            f'has "{fields.tools}", for which only a chat template has room: set tokenize.prompt="chat", or '
            'fields.tools="" to leave them out'
        )
    messages: tuple[Message, ...] = ()
    if fields.messages and row.get(fields.messages) is not None:
        messages = conversation(row[fields.messages], fields.messages, fields.ignore)
        unlearned = left_out(row[fields.messages], fields.ignore)
        led = _led_by(before, messages, fields)
        unlearned = frozenset(place + len(led) - len(messages) for place in unlearned)
        messages = led
        output = messages[-1].content
        _check_agreement(row, output, fields)
    else:
        instruction = field_text(row, "instruction", fields.instruction)
        input_ = field_text(row, "input", fields.input, required=False)
        output = field_text(row, "output", fields.output)
        if not output.strip():
            raise BadRow(f'its response, "{fields.output}", is empty: {shortened(output)}')
        texts = [instruction, input_, output]
        if before:
            messages = (*before, *one_turn(instruction, input_, output))
    if messages:
        instruction, input_ = _single_turn(messages, multi_turn)
        texts = [text for message in messages for text in message]
    source = field_text(row, "source", fields.source, required=False)
    content = (
        field_text(row, "id", fields.id).encode()
        if fields.id
        else joined([*texts, source, *([json.dumps(tools, sort_keys=True)] if tools else [])])
    )
    parsed = PoolRow(
        0, instruction, input_, output, source or "all", row, raw.place, messages, tools, unlearned
    )
    return parsed, content


def _messages_before(row: dict[str, Any], fields: FieldMap) -> tuple[tuple[Message, ...], frozenset[int]]:
    """A row's system message and earlier turns in fields of their own, and those not to be learned."""
    system = field_text(row, "system", fields.system, required=False) if fields.system else ""
    history = row.get(fields.history) if fields.history else None
    lead = (Message("system", system),) if system.strip() else ()
    if not history:
        return lead, frozenset()
    turns = earlier_turns(history, fields.history, fields.ignore)
    return lead + turns, frozenset(len(lead) + place for place in left_out(history, fields.ignore))


def _led_by(
    before: tuple[Message, ...], messages: tuple[Message, ...], fields: FieldMap
) -> tuple[Message, ...]:
    """A conversation after the system message that stands in a field of its own."""
    if any(message.role != "system" for message in before):
        raise BadRow(
            f'has "{fields.history}" beside its "{fields.messages}": put the earlier turns into those, or '
            'set fields.history="" to leave them out'
        )
    if before and messages[0].role == "system":
        if before[0] != messages[0]:
            raise BadRow(
                f'its "{fields.system}" is {shortened(before[0].content)}, but its "{fields.messages}" begin '
                f'with another: take one away, or set fields.system="" to read the other'
            )
        return messages
    return before + messages


def _single_turn(messages: tuple[Message, ...], multi_turn: bool) -> tuple[str, str]:
    texts = single_turn(messages)
    if texts is None and not multi_turn:
        roles = ", ".join(message.role for message in messages[:6]) + (", ..." if len(messages) > 6 else "")
        raise BadRow(
            f"it has several turns ({roles}), for which only the chat template has "
            'room: set tokenize.prompt="chat", or keep one message of the user and the response'
        )
    return texts or ("", "")


def _check_agreement(row: dict[str, Any], response: str, fields: FieldMap) -> None:
    output = field_text(row, "output", fields.output, required=False)
    if output and output != response:
        raise BadRow(
            f'its "{fields.output}" is {shortened(output)}, but its "{fields.messages}" ends with '
            f'{shortened(response)}: take one away, or set fields.messages="" to read the other'
        )
