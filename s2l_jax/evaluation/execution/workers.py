"""Warm child processes that do what must be able to hang, crash or attack without harm."""

import atexit
import concurrent.futures
import contextlib
import functools
import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

from s2l_jax.errors import InputError
from s2l_jax.evaluation.sandbox import confine, frames

_Pool = TypeVar("_Pool", bound="WorkerPool")

_START_SECONDS = 60.0
_GRACE_SECONDS = 15.0  # a server keeps the time itself, and clears up; past this it has failed
# What each kind of server does, and the packages that may be imported in it beside Python's own library.
_DOES = {
    "programs": "running programs",
    "expressions": "comparing expressions",
    "extraction": "looking for programs in responses",
}
_PACKAGES = {
    "programs": ("numpy", "scipy", "sympy", "mpmath"),
    "expressions": ("sympy", "mpmath", "math_verify", "latex2sympy2_extended", "antlr4"),
    "extraction": (),
}
_OURS = ("s2l_jax", "lazy_loader")  # the code of the server, and what it imports
# Sets print in one order, and no library starts threads of its own.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class WorkerPool:
    """Some servers of one kind, each with one request at a time; a context manager that ends them.

    Args:
      kind: "programs", "expressions" or "extraction".
      num_workers: servers, started when they are first needed; 0: one a core.
      confined: with Landlock and seccomp, not with limits alone.
    """

    def __init__(self, kind: str, num_workers: int = 0, *, confined: bool) -> None:
        self._kind, self._confined = kind, confined
        self._size = num_workers or _cores()
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._size):
            self._idle.put(None)

    def ask(self, requests: Sequence[Any], timeout: float, lost: Callable[[str], Any]) -> list[Any]:
        """The answer to each request, in order; `lost(reason)` for one whose server died of it.

        Args:
          requests: anything JSON can hold.
          timeout: seconds that the server allows each; it is killed some time after.
          lost: makes an answer.

        Raises:
          InputError: no server can be started.
        """

        def one(request: Any) -> Any:
            try:
                with self._worker() as worker:
                    return worker.ask(request, timeout + _GRACE_SECONDS)
            except (frames.ClosedError, frames.TimedOutError) as error:
                return lost(f"its process died ({error or 'no answer'})")

        with concurrent.futures.ThreadPoolExecutor(self._size) as threads:
            return list(threads.map(one, requests))

    def close(self) -> None:
        """End the servers; later requests start new ones."""
        workers = [self._idle.get() for _ in range(self._size)]
        for worker in workers:
            if worker is not None:
                worker.close()
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _worker(self) -> Iterator["_Worker"]:
        worker = self._idle.get()
        try:
            worker = worker or _Worker(self._kind, self._confined)
            yield worker
        except BaseException:
            if worker is not None:  # it may be about to answer what nobody waits for any more
                worker.close()
                worker = None
            raise
        finally:
            self._idle.put(worker)


@functools.cache
def shared(kind: Callable[[int], _Pool]) -> _Pool:
    """The pool of one worker that lasts as long as this process, for single requests."""
    pool = kind(1)
    atexit.register(pool.close)
    return pool


def check_confinement() -> None:
    """Find now what would stop programs from being run confined.

    Raises:
      InputError: the machine cannot confine them; says what it lacks.
    """
    if lack := confine.missing():
        raise InputError(
            f"programs cannot be run confined on this machine: {lack}. Evaluate elsewhere or without "
            "programs (evaluation.mode='text', evaluation.run_programs=False); in a container that holds "
            "nothing you would miss, evaluation.run_programs='unconfined' runs them as they are "
            "(docs/design/security.md)."
        )


class _Worker:
    """One server process."""

    def __init__(self, kind: str, confined: bool) -> None:
        if confined and kind == "programs":
            check_confinement()
        packages = [_folder(name) for name in _PACKAGES[kind]]
        settings = {
            "kind": kind,
            "confined": confined,
            "packages": packages,
            "temporary": os.path.realpath(tempfile.gettempdir()),
        }
        # Without `site` (-S) no other project's path file (.pth) is followed.
        places = {os.path.dirname(folder) for folder in [*map(_folder, _OURS), *packages]}
        code = (
            f"import sys; library = sys.path[:]; sys.path += {sorted(places)!r}; "
            "from s2l_jax.evaluation.sandbox.server import main; main(library)"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-c", code, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        try:
            hello = frames.receive(self._pipes()[1], _START_SECONDS)
        except (frames.ClosedError, frames.TimedOutError) as error:
            hello = {"failed": str(error) or f"no sign of life in {_START_SECONDS:g} s"}
        except BaseException:
            self.close()
            raise
        if "failed" in hello:
            self.close()
            raise InputError(f"{_DOES[kind]} is not possible on this machine: {hello['failed']}.")

    def ask(self, request: Any, seconds: float) -> Any:
        requests, answers = self._pipes()
        frames.send(requests, request)
        return frames.receive(answers, seconds)

    def close(self) -> None:
        """End the server, which clears up when its pipes are closed."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _pipes(self) -> tuple[int, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin.fileno(), self._process.stdout.fileno()


def _folder(package: str) -> str:
    """Where a package is."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return os.path.abspath(spec.submodule_search_locations[0])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
