"""Process 0's side of the control channel: it counts who comes, and passes on who fails and who must stop."""

import contextlib
import dataclasses
import json
import selectors
import socket
import threading
import time
from typing import Any

_SEND_SECONDS = 5.0
LOST = 4  # exit status where a process is gone; see launch.py


@dataclasses.dataclass(eq=False)
class _Peer:
    """A connection, and which process is at its other end."""

    connection: socket.socket
    index: int | None = None  # None: it has not said yet
    received: bytes = b""
    has_left: bool = False  # its end is no failure any more


class Hub(threading.Thread):
    """Takes connections until all processes have come, and serves them until this process ends.

    Messages are lines of JSON; `control.Channel` is the other side. The listener is closed before the first
    process is told that all have come, so that JAX can use its port.

    Args:
      listener: bound and listening.
      count: processes, this one included.
      wait_seconds: how long they may take to come.

    Attributes:
      others_are_gone: set once no connection but this process's own is left.
    """

    def __init__(self, listener: socket.socket, count: int, wait_seconds: float):
        super().__init__(name="control hub", daemon=True)
        self.others_are_gone = threading.Event()
        self._listener, self._count, self._wait_seconds = listener, count, wait_seconds
        self._peers: dict[int, _Peer] = {}
        self._all_came = False
        self._has_failed = False
        self._signal = 0
        self._polls: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        deadline = time.monotonic() + self._wait_seconds
        self._selector.register(self._listener, selectors.EVENT_READ)
        while True:
            left = None if self._all_came else max(0.0, deadline - time.monotonic())
            for key, _ in self._selector.select(left):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data)
            if not self._all_came and time.monotonic() >= deadline:
                self._give_up()
                return

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        keep_alive(connection)
        connection.settimeout(_SEND_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ, _Peer(connection))

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(65_536)
        except OSError:
            data = b""
        *lines, peer.received = (peer.received + data).split(b"\n")
        try:
            for line in lines:
                self._take(peer, json.loads(line))
        except (ValueError, KeyError, TypeError):
            data = b""  # a stranger on the port
        if not data:
            self._close(peer)

    def _take(self, peer: _Peer, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "hello":
            self._welcome(peer, message["process"], message["count"])
        elif peer.index is None:
            raise ValueError("it has to say who it is first")
        elif kind == "leaving":
            peer.has_left = True
        elif kind == "failed":
            self._pass_on_failure(peer.index, message["reason"], message["status"])
            _send(peer, {"kind": "noted"})
        elif kind == "stop" and not self._signal:
            self._signal = message["signal"]
            self._tell_all({"kind": "count"})
        elif kind == "polls":
            self._polls[peer.index] = message["polls"]
            if len(self._polls) == len(self._peers):
                last = max(self._polls.values()) + 1
                self._tell_all({"kind": "stop", "signal": self._signal, "poll": last})

    def _welcome(self, peer: _Peer, index: int, count: int) -> None:
        if count != self._count or not 0 <= index < self._count:
            refusal = f"it is process {index} of {count}, the others are {self._count}"
        elif index in self._peers:
            refusal = (
                f"another process says that it is process {index}: are there two groups with one address?"
            )
        else:
            peer.index = index
            self._peers[index] = peer
            _send(peer, {"kind": "welcome"})
            if len(self._peers) == self._count:
                self._begin()
            return
        _send(peer, {"kind": "refused", "reason": refusal})

    def _begin(self) -> None:
        self._all_came = True
        self._selector.unregister(self._listener)
        self._listener.close()
        self._tell_all({"kind": "begin"})

    def _give_up(self) -> None:
        missing = [index for index in range(self._count) if index not in self._peers]
        text = f"{len(self._peers)} of {self._count} processes came within {self._wait_seconds:g} s; "
        text += f"missing: {', '.join(map(str, missing[:20]))}{', ...' if len(missing) > 20 else ''}"
        self._listener.close()
        self._tell_all({"kind": "late", "reason": text})

    def _close(self, peer: _Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        if peer.index is None:
            return
        del self._peers[peer.index]
        if set(self._peers) <= {0}:
            self.others_are_gone.set()
        if self._all_came and not peer.has_left:
            reason = "it ended without a word: killed, out of memory, or its machine is gone"
            self._pass_on_failure(peer.index, reason, LOST)

    def _pass_on_failure(self, index: int, reason: str, status: int) -> None:
        if self._has_failed:  # what follows is a consequence, or came too late to be told
            return
        self._has_failed = True
        self._tell_all({"kind": "failed", "process": index, "reason": reason, "status": status}, but=index)

    def _tell_all(self, message: dict[str, Any], but: int | None = None) -> None:
        for index in sorted(self._peers, reverse=True):  # process 0 last, as this thread may end with it
            if index != but:
                _send(self._peers[index], message)


def _send(peer: _Peer, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # it is found to be gone when it is read from
        peer.connection.sendall(json.dumps(message).encode() + b"\n")


def keep_alive(connection: socket.socket) -> None:
    """Have the connection break half a minute after the other machine has gone silent."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):  # not on all systems
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
