"""The control channel between the processes of a run: who came, who failed and why, and when to stop.

JAX's coordination service aborts a process whose group has lost one, with a dump and at the earliest after
missed heartbeats; it does not say how many came, and what it offers for telling reasons is not public. So
each process keeps a TCP connection to process 0, from before JAX is started, on the port that JAX then
takes. A killed process closes its own.
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
import types
from typing import Any, NoReturn

from s2l_jax import artifacts
from s2l_jax.console import tell
from s2l_jax.errors import InputError
from s2l_jax.parallel.clusters import ADDRESS, Group
from s2l_jax.parallel.control_hub import LOST, Hub, keep_alive

_RETRY_SECONDS = 0.3
_PORT_SECONDS = 10.0  # in which a run that has just ended may still have the port
_LATE_SECONDS = 15.0  # after which process 0 should have said that others are missing
_CAUSE_SECONDS = 1.0  # in which the cause of what goes wrong here may arrive from elsewhere
_GRACE_SECONDS = 5.0  # for what this process does when another fails

_channel: "Channel | None" = None


def join(group: Group, wait_seconds: float) -> None:
    """Connect this process to the others of its group; returns when all have come.

    From then on a process that fails (`end`, or an uncaught exception) or disappears ends all of them,
    each with a line that says why.

    Raises:
      InputError: the address is in use by another run, or the group is another than process 0's.
      TimeoutError: not all came in time.
    """
    global _channel
    _channel = connect(group, wait_seconds)
    atexit.register(_channel.leave)
    sys.excepthook = _channel.on_exception


def end(reason: str, status: int) -> None:
    """End this process and all others of its group, if it is in one; they say the reason."""
    if _channel is not None:
        _channel.end(reason, status)


def ask_to_stop(signal: int) -> None:
    """Have all processes stop at one place (`stopped_by`), as this one got a signal."""
    if _channel is not None:
        _channel.send({"kind": "stop", "signal": signal})


def stopped_by() -> int:
    """The signal for which all processes stop here, or 0; all of them call it at the same places."""
    return 0 if _channel is None else _channel.poll()


def connect(group: Group, wait_seconds: float) -> "Channel":
    """What `join` does but for uncaught errors; process 0 also starts the hub that the others come to."""
    hub = None
    if group.index == 0:
        hub = Hub(_listen(group), group.count, wait_seconds)
        hub.start()
    return Channel(_connect(group, wait_seconds), group, hub)


class Channel:
    """A process's connection to process 0, when all have come; see the functions above."""

    def __init__(self, connection: socket.socket, group: Group, hub: Hub | None):
        self._connection, self._group, self._hub = connection, group, hub
        self._failure: dict[str, Any] | None = None
        self._has_failed, self._is_noted = threading.Event(), threading.Event()
        self._sending = threading.RLock()  # a signal may come while this thread sends
        self._polling = threading.Condition()
        self._polls = 0
        self._is_counting = self._is_ending = False
        self._stop: dict[str, Any] | None = None
        threading.Thread(target=self._listen, name="control channel", daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Tell process 0, if it is still there."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def leave(self) -> None:
        """This process is done; that it ends is no failure."""
        self.send({"kind": "leaving"})

    def end(self, reason: str, status: int) -> NoReturn:
        """See `end` above; another's failure that has arrived by now is the cause of this one."""
        if self._has_failed.wait(_CAUSE_SECONDS):
            self._exit(self._failure["status"] if self._failure else LOST)
        self._is_ending = True
        self.send({"kind": "failed", "reason": reason, "status": status})
        self._is_noted.wait(_GRACE_SECONDS)
        self._exit(status)

    def on_exception(
        self, kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> None:
        """What Python calls for an uncaught exception."""
        if not self._has_failed.wait(_CAUSE_SECONDS):
            sys.__excepthook__(kind, error, trace)
        self.end(f"{kind.__name__}: {(str(error).splitlines() or [''])[0]}", 1)

    def poll(self) -> int:
        """See `stopped_by`. Stops are at the first poll that no process has come to when it is asked for."""
        with self._polling:
            self._polls += 1
            self._polling.wait_for(lambda: not self._is_counting)
            return self._stop["signal"] if self._stop and self._polls >= self._stop["poll"] else 0

    def _listen(self) -> None:
        with self._connection.makefile("rb") as lines, contextlib.suppress(OSError, ValueError):
            for line in lines:
                self._take(json.loads(line))
        if not self._has_failed.is_set():
            # No grace: JAX's service, which was in process 0 too, is about to abort this process.
            self._tell(0, "it ended without a word: killed, out of memory, or its machine is gone")
            self._exit(LOST)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "failed":
            self._failure = message
            if not self._is_ending:  # by an error of its own, at the same time
                self._tell(message["process"], message["reason"])
            self._has_failed.set()
            time.sleep(_GRACE_SECONDS)
            self._exit(message["status"])
        elif kind == "noted":
            self._is_noted.set()
        elif kind == "count":
            with self._polling:
                self._is_counting = True
                self.send({"kind": "polls", "polls": self._polls})
        elif kind == "stop":
            with self._polling:
                self._stop, self._is_counting = message, False
                self._polling.notify_all()

    def _tell(self, process: int, reason: str) -> None:
        tell(f"process {process} of {self._group.count} has ended, and this one with it: {reason}")

    def _exit(self, status: int) -> NoReturn:
        # Not sys.exit: JAX would wait for the others, and they for this process.
        if self._hub is not None:
            self._hub.others_are_gone.wait(
                2 * _GRACE_SECONDS
            )  # else JAX aborts them before they have said why
        artifacts.remove_copies()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _listen(group: Group) -> socket.socket:
    port = int(os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", group.address).rpartition(":")[2])
    deadline = time.monotonic() + _PORT_SECONDS
    while True:
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"process 0 cannot open the port of {group.address} ({error.strerror}): another run may "
                    f"have it. Give each run a port of its own, in {ADDRESS} or JAX_COORDINATOR_PORT."
                ) from error
        time.sleep(_RETRY_SECONDS)


class _TryAgain(Exception):
    """Process 0 is not there, or not yet; says what is met instead."""


def _connect(group: Group, wait_seconds: float) -> socket.socket:
    """A connection to the hub, when all processes have one."""
    host, _, port = group.address.rpartition(":")
    place = ("localhost" if group.index == 0 else host.strip("[]"), int(port))
    deadline = time.monotonic() + wait_seconds
    met = "nothing answers"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with contextlib.ExitStack() as closing:
                connection = closing.enter_context(socket.create_connection(place, timeout=left))
                connection.settimeout(left + _LATE_SECONDS)
                _introduce(connection, group)
                keep_alive(connection)
                connection.settimeout(None)
                closing.pop_all()
                return connection
        except (OSError, _TryAgain) as error:
            if isinstance(error, LateError):
                raise
            met = str(error)
        time.sleep(_RETRY_SECONDS)
    raise TimeoutError(
        f"process {group.index} of {group.count} waited {wait_seconds:g} s for process 0 at {group.address} "
        f"({met}): it may not have been started, not be reachable from here, or belong to another run"
    )


class LateError(TimeoutError):
    """Process 0 has given the others up."""


def _introduce(connection: socket.socket, group: Group) -> None:
    """Say who this is, and wait for the others."""
    hello = {"kind": "hello", "process": group.index, "count": group.count}
    connection.sendall(json.dumps(hello).encode() + b"\n")
    for expected in ("welcome", "begin"):
        answer = _answer(connection)
        if answer.get("kind") == "refused":
            raise InputError(
                f"process {group.index} of {group.count} was refused by process 0 at {group.address}: "
                f"{answer['reason']}. Start each process once, with a number of its own and one count for "
                f"all, and each run with an address of its own ({ADDRESS})."
            )
        if answer.get("kind") == "late":
            raise LateError(answer["reason"])
        if answer.get("kind") != expected:
            raise _TryAgain("another program answers")


def _answer(connection: socket.socket) -> dict[str, Any]:
    """A message, read no further than its end."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 4096:
        if not (byte := connection.recv(1)):
            raise _TryAgain("the connection was closed")
        line += byte
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise _TryAgain("another program answers")
    return answer
