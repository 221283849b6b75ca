"""What a process gives up before it runs what nobody has checked."""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence

from s2l_jax.evaluation.sandbox import landlock, linux, seccomp

_TASKS = 64  # processes and threads, besides those that the user has already
_OPEN_FILES = 64
_FILE_BYTES = 16 * 2**20


def readable_paths(folders: Sequence[str]) -> list[str]:
    """The paths that Python needs, and `folders` to import from: nothing else of homes, /etc or /proc."""
    found = [sys.prefix, sys.base_prefix, *folders]
    found += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"]
    found += _folders_of_libraries()
    absolute = [os.path.abspath(path) for path in found]
    paths = {*absolute, *map(os.path.realpath, absolute)} - {"/"}
    shown: list[str] = []
    for path in sorted(paths):  # a folder comes before what is in it, which needs no place of its own
        if os.path.exists(path) and not any(path.startswith(f"{folder}/") for folder in shown):
            shown.append(path)
    return shown


def _folders_of_libraries() -> set[str]:
    """Where the libraries that this process has loaded are."""
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        return {os.path.dirname(line.split()[5]) for line in maps if ".so" in line and " /" in line}
    return set()


def give_up_everything(
    *,
    readable: Sequence[str],
    writable: Sequence[str],
    seconds: float,
    memory: int,
    own_user: bool,
    layers: Sequence[str],
) -> None:
    """Set limits, drop privileges, and install what there is of Landlock and seccomp; none can be undone.

    Args:
      readable: see `landlock.restrict`.
      writable: likewise.
      seconds: of CPU time.
      memory: bytes of address space.
      own_user: no other process runs as this one's user.
      layers: of "landlock" and "seccomp", those to install.

    Raises:
      OSError: a layer could not be installed.
    """
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    tasks = _TASKS if own_user else _TASKS + _tasks_of_user()
    cpu = int(seconds) + 1
    for name, limit in (
        ("CPU", cpu),
        ("AS", memory),
        ("NPROC", tasks),
        ("NOFILE", _OPEN_FILES),
        ("FSIZE", _FILE_BYTES),
        ("CORE", 0),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
    ):
        _limit(name, limit)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # an architecture whose number for it is not known
            linux.drop_capabilities()
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
    if "landlock" in layers:
        landlock.restrict(readable, writable)
    if "seccomp" in layers:
        seccomp.install()


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind, where the system has that."""
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)


def _limit(name: str, limit: int) -> None:
    what = getattr(resource, f"RLIMIT_{name}", None)
    if what is None:
        return
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with contextlib.suppress(*(() if sys.platform == "linux" else (ValueError, OSError))):
        resource.setrlimit(what, (limit, limit))


def _tasks_of_user() -> int:
    """Processes and threads that run as this process's user."""
    count = 0
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count
