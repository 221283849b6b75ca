"""Messages through a pipe: JSON after its length, so that neither end can make the other run anything."""

import itertools
import json
import os
import select
import struct
import time
from typing import Any

LONGEST = 64 * 2**20  # bytes of a message


class ClosedError(Exception):
    """The other end is gone, or sent what is no message."""


class TimedOutError(Exception):
    """No whole message came in time."""


def send(fd: int, message: Any) -> None:
    """Write one message.

    Raises:
      ClosedError: nobody reads it.
    """
    text = json.dumps(message).encode()
    view = memoryview(struct.pack("!Q", len(text)) + text)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise ClosedError(str(error)) from None


def receive(fd: int, seconds: float | None = None) -> Any:
    """Read one message, waiting at most `seconds` for all of it; None: for ever.

    Raises:
      ClosedError: the other end is gone, or sent what is no message.
      TimedOutError: it took longer.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    (length,) = struct.unpack("!Q", _read(fd, 8, deadline))
    if length > LONGEST:
        raise ClosedError(f"a message of {length} bytes")
    try:
        return json.loads(_read(fd, length, deadline))
    except ValueError as error:
        raise ClosedError(str(error)) from None


def close_all_but(*kept: int | None) -> None:
    """Close all files of this process but standard input, output and error and some others."""
    ends = [2, *sorted(fd for fd in kept if fd is not None), os.sysconf("SC_OPEN_MAX")]
    for before, after in itertools.pairwise(ends):
        os.closerange(before + 1, after)


def _read(fd: int, length: int, deadline: float | None) -> bytes:
    parts = []
    while length:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not _readable(fd, left):
                raise TimedOutError
        try:
            part = os.read(fd, min(length, 2**20))
        except OSError as error:
            raise ClosedError(str(error)) from None
        if not part:
            raise ClosedError("the pipe is closed")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _readable(fd: int, seconds: float) -> bool:
    poll = select.poll()  # select.select fails above 1,023 open files
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
