"""One run at a time works in a workdir: who has it says so in `owner.json`, and keeps saying so."""

import contextlib
import datetime
import json
import os
import pathlib
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.console import say
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes
from s2l_jax.parallel.agreement import said_by_writer

FILE = "owner.json"
BEAT = 10.0  # seconds between an owner's signs of life
SILENCE = 120.0  # seconds without one after which an owner on another machine is taken for dead
_LOOK = 1.0  # seconds between looks at an owner on another machine


@contextlib.contextmanager
def owning(workdir: epath.Path) -> Iterator[None]:
    """Have a workdir, made if need be, as long as the context lasts; all processes of a run are one owner.

    A dead owner keeps nothing: on this machine its process is looked for; one on another machine is
    watched, and taken for dead after `SILENCE` seconds in which it gave no sign of life.

    Raises:
      InputError: another run has it, or took it over since this one had given no sign of life.
      OSError: it cannot be written.
    """
    claim, failure = None, None
    if processes.is_writer():
        try:
            claim = _Claim(workdir)
        except (InputError, OSError) as error:
            failure = error
    said = said_by_writer("" if failure is None else str(failure))
    if failure is not None:
        raise failure
    if said:
        raise InputError(said)
    try:
        yield
    except KeyboardInterrupt:
        if claim is not None and claim.lost:
            raise InputError(claim.lost) from None
        raise
    finally:
        if claim is not None:
            claim.release()
    if claim is not None and claim.lost:
        raise InputError(claim.lost)


class _Claim:
    """This process's claim on a workdir: a file that is replaced only by who has seen what it replaces."""

    def __init__(self, workdir: epath.Path):
        self.lost = ""  # why, once it is
        self._workdir = workdir
        self._mine = _this_process() | {
            "since": datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            "claim": uuid.uuid4().hex,  # of those of one process and second, too, one is this
        }
        self._is_new = not artifacts.is_remote(workdir) and not workdir.exists()
        try:
            if self._is_new:
                workdir.mkdir(parents=True, exist_ok=True)
            self._files = artifacts.conditional_files(workdir)
            self._generation = self._take()
        except (InputError, OSError):
            raise
        except Exception as error:  # tensorstore has one kind for all that goes wrong
            raise OSError(f"{workdir / FILE} could not be written ({error})") from error
        self._released = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="owner of the workdir", daemon=True)
        self._beating.start()

    def release(self) -> None:
        """Leave the workdir to the next."""
        self._released.set()
        self._beating.join()
        with contextlib.suppress(Exception):  # what is left is a dead owner's
            self._files.write(FILE, None, if_equal=self._generation).result()
        if self._is_new:
            with contextlib.suppress(OSError):
                os.rmdir(self._workdir)  # where nothing was made

    def _take(self) -> bytes:
        watched, deadline = None, 0.0
        while True:
            found = self._files.read(FILE).result()
            owner, generation = _parsed(found.value), found.stamp.generation
            if self._is_mine(owner):
                return generation
            if found.state != "missing" and not _is_dead(owner):
                if watched is None and not _is_here(owner):
                    watched, deadline = generation, time.monotonic() + SILENCE
                    say(
                        f"{self._workdir} is marked as in use by {_named(owner)}; it is taken over if there "
                        f"is no sign of life within {SILENCE:.0f} s"
                    )
                if watched is None or watched != generation:
                    raise InputError(self._in_use(owner))
                if time.monotonic() < deadline:
                    time.sleep(_LOOK)
                    continue
            if taken := self._write(generation):
                return taken

    def _write(self, before: bytes) -> bytes:
        """Put this owner in place of what was `before`; the new generation, or b"" if another came first."""
        content = json.dumps(self._mine | {"alive_at": time.time()}, indent=2) + "\n"
        return self._files.write(FILE, content, if_equal=before).result().generation

    def _is_mine(self, owner: dict[str, Any]) -> bool:
        """Whether a store has the file of this owner, and said no to a write that it had done and repeats."""
        return all(owner.get(name) == value for name, value in self._mine.items())

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            try:
                if now := self._write(self._generation):
                    self._generation = now
                    continue
                found = self._files.read(FILE).result()
                owner = _parsed(found.value)
                if self._is_mine(owner):
                    self._generation = found.stamp.generation
                    continue
            except Exception:  # whatever the store's client raises; it is tried again
                continue
            self.lost = (
                f"{self._workdir} is no longer this run's ({_named(owner)} has it now): it had given no sign "
                f"of life for {SILENCE:.0f} s, or {FILE} was removed. What was finished before is intact."
            )
            break
        while self.lost and not self._released.wait(1.0):
            os.kill(os.getpid(), signal.SIGINT)

    def _in_use(self, owner: dict[str, Any]) -> str:
        stop = f", stop it there (kill {owner['pid']})" if "pid" in owner else ""
        return (
            f"{self._workdir} is in use: {_named(owner)} works in it since "
            f"{owner.get('since', 'an unknown time')}. Wait until it ends{stop}, or use another --workdir. "
            f"A run that died is noticed: at once on its own machine, elsewhere after {SILENCE:.0f} s."
        )


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(content)
    except ValueError:
        owner = None
    return owner if isinstance(owner, dict) else {}


def _named(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown host')}"


def _is_here(owner: dict[str, Any]) -> bool:
    """Whether its process can be looked for: it is of this boot of this machine, and of this container."""
    return owner.get("machine") == _machine() and isinstance(owner.get("pid"), int)


def _is_dead(owner: dict[str, Any]) -> bool:
    return _is_here(owner) and _started(owner["pid"]) != owner.get("started")


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """Within what a process id means one process: a boot of a host, and there a space of process ids."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks, or "running" where they are not told; "" if it ended."""
    try:
        # After the name, which may hold anything: state, 18 more fields, and the start.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "running"
