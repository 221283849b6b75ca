"""Warm child processes that do what must be able to hang, crash or attack without harm."""

import atexit
import concurrent.futures
import contextlib
import functools
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import s2l_jax
from s2l_jax.errors import InputError
from s2l_jax.evaluation.sandbox import confine, frames, namespaces, scratch

_Pool = TypeVar("_Pool", bound="WorkerPool")

LAYERS = ("namespaces", "landlock", "seccomp")  # of isolation, where the machine has them

_START_SECONDS = 60.0
_GRACE_SECONDS = 10.0  # a server keeps the time itself; past this it has failed
_PACKAGES = ("numpy", "sympy", "mpmath", "math_verify", "latex2sympy2_extended", "antlr4")
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
      kind: "programs" or "expressions".
      num_workers: servers, started when they are first needed; 0: one a core.
      layers: of isolation that may be used; those the machine lacks are left out.
    """

    def __init__(self, kind: str, num_workers: int = 0, layers: Sequence[str] = LAYERS) -> None:
        self._kind, self._layers = kind, tuple(layers)
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

        if self._size == 1:  # bubblewrap's servers end with the thread that started them
            return [one(request) for request in requests]
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

    @property
    def isolation(self) -> list[str]:
        """The layers of isolation in force here; starts a server if there is none, and raises as `ask`."""
        with self._worker() as worker:
            return worker.layers

    @contextlib.contextmanager
    def _worker(self) -> Iterator["_Worker"]:
        worker = self._idle.get()
        try:
            worker = worker or _Worker(self._kind, self._layers)
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


class _Worker:
    def __init__(self, kind: str, layers: tuple[str, ...]) -> None:
        self._folder = tempfile.mkdtemp(prefix="s2l_jax_")
        try:
            self._process, self.layers = _start(kind, layers, self._folder)
        except BaseException:
            self._remove_folder()
            raise
        if "namespaces" in self.layers:  # programs write in a folder that is in there alone
            self._remove_folder()

    def ask(self, request: Any, seconds: float) -> Any:
        requests, answers = _pipes(self._process)
        frames.send(requests, request)
        return frames.receive(answers, seconds)

    def close(self) -> None:
        _end(self._process)
        self._remove_folder()

    def _remove_folder(self) -> None:
        with contextlib.suppress(OSError):
            scratch.wipe(self._folder)


def _start(kind: str, layers: tuple[str, ...], folder: str) -> tuple[subprocess.Popen[bytes], list[str]]:
    """A server in the strongest isolation that works here, and the layers it has."""
    failures = []
    for mode in _modes(layers):
        process, hello = _try(kind, mode, layers, folder)
        if "layers" in hello:
            _working[layers] = mode
            if kind == "programs" and layers == LAYERS and not _sufficient(hello["layers"]):
                _end(process)
                failures.append(f"only {', '.join(hello['layers']) or 'limits'} would hold")
                break
            return process, hello["layers"]
        _end(process)
        failures.append(f"{mode or 'without namespaces'}: {hello['failed']}")
    what = "running programs" if kind == "programs" else "comparing expressions"
    raise InputError(
        f"{what} is not possible on this machine ({'; '.join(failures)}): it takes Linux with namespaces, "
        "bubblewrap, or Landlock and seccomp (docs/security.md). Evaluate elsewhere, or "
        "without programs (evaluation.mode='text', evaluation.run_programs=False)."
    )


def _sufficient(layers: list[str]) -> bool:
    """Whether files and network of the machine are out of reach."""
    return "namespaces" in layers or {"landlock", "seccomp"} <= set(layers)


_working: dict[tuple[str, ...], str] = {}  # the way that worked, by layers wanted


def _modes(layers: tuple[str, ...]) -> list[str]:
    """Ways to make namespaces, strongest first: our own, bubblewrap's, none."""
    if layers in _working:
        return [_working[layers]]
    if "namespaces" not in layers:
        return [""]
    return ["own", *(["bubblewrap"] if shutil.which("bwrap") else []), ""]


def _try(
    kind: str, mode: str, layers: tuple[str, ...], folder: str
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(s2l_jax.__file__)))
    packages = _package_folders()
    settings = {
        "kind": kind,
        "namespaces": mode,
        "layers": layers,
        "packages": packages,
        "hidden": [] if root in packages else [root],
        "folder": namespaces.SCRATCH if mode else folder,
    }
    code = (
        f"import sys; sys.path.append({root!r}); from s2l_jax.evaluation.sandbox.server import main; main()"
    )
    command = [sys.executable, "-s", "-P", "-c", code, json.dumps(settings)]
    if mode == "bubblewrap":
        command = [*_bubblewrap([*packages, os.path.join(root, "s2l_jax")]), *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )
    try:
        return process, frames.receive(_pipes(process)[1], _START_SECONDS)
    except (frames.ClosedError, frames.TimedOutError) as error:
        return process, {"failed": str(error) or f"no sign of life in {_START_SECONDS:g} s"}


def _bubblewrap(folders: list[str]) -> list[str]:
    """The command that runs another one in namespaces like those of `sandbox.namespaces`."""
    command = ["bwrap", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL", "--chdir", "/"]
    command += [f"--unshare-{name}" for name in ("user", "pid", "net", "ipc", "uts")]
    command += ["--uid", "65534", "--gid", "65534"]
    for path in confine.readable_paths(folders):
        command += ["--ro-bind", os.path.realpath(path), path]
    for path in namespaces.DEVICES:
        command += ["--dev-bind", path, path]
    return [*command, "--size", str(64 * 2**20), "--tmpfs", namespaces.SCRATCH, "--remount-ro", "/"]


def _package_folders() -> list[str]:
    """Where the packages are that programs and comparisons import."""
    specs = (importlib.util.find_spec(name) for name in _PACKAGES)
    origins = [spec.origin for spec in specs if spec is not None and spec.origin]
    return sorted({os.path.dirname(os.path.dirname(os.path.abspath(origin))) for origin in origins})


def _pipes(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin.fileno(), process.stdout.fileno()


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:  # which closes the pipes, and waits
        process.kill()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
