"""The warm child process: confined once, it forks one child for each program, or one for many expressions."""

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

from s2l_jax.evaluation.sandbox import confine, frames, landlock, namespaces, program, scratch, seccomp
from s2l_jax.evaluation.sandbox.expressions import ExpressionChild

_KEPT_OF_ERROR = 2000  # bytes, from the end


def main() -> None:
    """Serve the parent until it closes the pipe; settings are JSON, the first argument.

    Settings: `kind` ("programs" or "expressions"), `namespaces` ("own"; another name where they are made
    already; "" for none), `layers` (of "landlock" and "seccomp", those wanted), `packages` (folders to
    import from), `hidden` (folders to import no more from) and `folder` (where programs may write).
    """
    settings = json.loads(sys.argv[1])
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    try:
        server = _Server(settings, requests)
    except (OSError, ImportError) as error:
        frames.send(answers, {"failed": f"{type(error).__name__}: {error}"})
        return
    frames.send(answers, {"layers": server.layers})
    with contextlib.suppress(frames.ClosedError):  # the parent is gone
        while True:
            frames.send(answers, server.answer(frames.receive(requests)))


class _Server:
    def __init__(self, settings: dict[str, Any], requests: int) -> None:
        sys.path[:] = [path for path in sys.path if path not in settings["hidden"]]
        sys.path += [path for path in settings["packages"] if path not in sys.path]
        readable = confine.readable_paths(sys.path)
        self._requests = requests
        own_user = bool(settings["namespaces"])
        if settings["namespaces"] == "own":
            namespaces.enter(readable)
        elif not settings["namespaces"] and os.getuid() == 0:
            own_user = _become_nobody(settings["folder"], readable)
        offered = {"landlock": landlock.version() > 0, "seccomp": seccomp.supported()}
        installed = [name for name in settings["layers"] if offered.get(name)]
        self.layers = [*(["namespaces"] if settings["namespaces"] else []), *installed]
        self._scratch = settings["folder"]
        self._folder = os.path.join(self._scratch, "program")
        self._limits = {
            "readable": [*readable, *namespaces.DEVICES],
            "writable": [self._folder, os.devnull],
            "own_user": own_user,
            "layers": installed,
        }
        confine.adopt_orphans()
        if settings["kind"] == "programs":
            program.warm_up()
            self._expressions = None
        else:
            self._expressions = ExpressionChild(self._limits)
        gc.collect()
        gc.freeze()  # what is imported stays shared with the children

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What became of one request."""
        if self._expressions is not None:
            return self._expressions.answer(request)
        scratch.make(self._folder)
        try:
            return self._run(request)
        finally:
            self._kill_rest()
            scratch.empty(self._scratch)  # a program may have renamed its folder

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        pipes = [os.pipe(), os.pipe()]
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            _run_child(request, self._folder, self._limits, [end for _, end in pipes])
        for _, end in pipes:
            os.close(end)
        try:
            output, failure = self._watch(child, [end for end, _ in pipes], request, begun)
        finally:
            for end, _ in pipes:
                os.close(end)
        _, status = os.waitpid(child, 0)
        stdout, stderr = (each.decode(errors="replace") for each in output)
        return {
            "stdout": stdout,
            "ok": not failure and status == 0,
            "error": failure or _failure(os.waitstatus_to_exitcode(status), stderr),
            "seconds": time.monotonic() - begun,
        }

    def _watch(
        self, child: int, ends: list[int], request: dict[str, Any], begun: float
    ) -> tuple[list[bytes], str]:
        """Read what a child writes until it ends or has to be killed: its output, and why it was killed."""
        deadline = begun + request["timeout"]
        kept = dict.fromkeys(ends, b"")
        pidfd = os.pidfd_open(child)
        poll = select.poll()
        for fd in (*ends, pidfd, self._requests):
            poll.register(fd, select.POLLIN)
        failure, ended = "", False
        while not failure and not ended:
            left = deadline - time.monotonic()
            ready = {fd for fd, _ in poll.poll(max(left, 0) * 1000)}
            if self._requests in ready:  # nothing is asked before the answer: the parent is gone
                os._exit(0)
            ended = pidfd in ready
            for end in ready & kept.keys():
                part = os.read(end, 2**16)
                kept[end] += part
                if not part:
                    poll.unregister(end)
            if len(kept[ends[0]]) > request["output"]:
                kept[ends[0]] = kept[ends[0]][: request["output"]]
                failure = f"printed more than {request['output']} bytes"
            kept[ends[1]] = kept[ends[1]][-_KEPT_OF_ERROR:]
            if left <= 0 and not ended:
                failure = f"ran longer than {request['timeout']:g} s"
        if not failure:
            for end in ends:  # what it wrote last; a process it left behind may hold the pipe open
                os.set_blocking(end, False)
                with contextlib.suppress(BlockingIOError):
                    while part := os.read(end, 2**16):
                        kept[end] += part
                        if len(kept[end]) > request["output"]:
                            break
        os.close(pidfd)
        os.kill(child, signal.SIGKILL)
        return [kept[end] for end in ends], failure

    def _kill_rest(self) -> None:
        """Kill and wait for all that a child left behind; none of it is older than the child."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                if os.getpid() == 1:
                    os.kill(-1, signal.SIGKILL)  # all of this namespace but process 1
                else:
                    for pid in _children():
                        os.kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.001)
        os._exit(1)  # the parent starts another server


def _become_nobody(folder: str, readable: list[str]) -> bool:
    """As root change to another user, if that one can read Python; whether it did."""
    child = os.fork()
    if child == 0:
        try:
            namespaces.become_nobody(folder)
            os._exit(0 if all(os.access(path, os.R_OK) for path in readable) else 1)
        except OSError:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        os.chown(folder, 0, 0)
        return False
    namespaces.become_nobody(folder)
    return True


def _children() -> list[int]:
    """This process's children; those whose parent died are among them."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{name}/stat") as file:
                parent = file.read().rsplit(")", 1)[1].split()[1]
            if int(parent) == os.getpid():
                found.append(int(name))
    return found


def _run_child(request: dict[str, Any], folder: str, limits: dict[str, Any], ends: list[int]) -> NoReturn:
    """In the child: confine it and run the program."""
    try:
        os.setsid()
        for fd, end in enumerate(ends, start=1):
            os.dup2(end, fd)
        os.closerange(3, 1024)
        os.chdir(folder)
        confine.give_up_everything(**limits, seconds=request["timeout"], memory=request["memory"])
    except BaseException as error:
        os.write(2, f"the program could not be confined: {error}".encode())
        os._exit(1)
    program.run_as_child(request["code"])


def _failure(exit_code: int, stderr: str) -> str:
    """Why a child that ended by itself is no success; empty if it is one."""
    if exit_code == 0:
        return ""
    if exit_code == -signal.SIGXCPU or exit_code == -signal.SIGKILL:
        return "used up its CPU time or memory"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else f"exited with status {exit_code}"


if __name__ == "__main__":
    main()
