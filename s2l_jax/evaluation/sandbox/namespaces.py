"""Namespaces of this process's own: Python for a root, no network, no other processes."""

import contextlib
import os
import signal
from collections.abc import Sequence

from s2l_jax.evaluation.sandbox import linux

SCRATCH = "/scratch"  # in the new root: the one folder that can be written to
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

_NEW = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
_NOBODY = 65534
_BASE = "/tmp"  # where the new root is mounted while it is put together; what is there stays untouched
_OLD = "/old"
_SCRATCH_OPTIONS = "size=64m,nr_inodes=4096,mode=700"


def enter(readable: Sequence[str]) -> None:
    """Go on as process 1 of new namespaces, in a root of the `readable` paths, read-only, and `SCRATCH`.

    The calling process stays outside, waits, and ends as this one does; if it is killed, all in the
    namespaces are. As root the user changes to one that owns nothing.

    Raises:
      OSError: the kernel or its policy does not let this process do it.
    """
    _unshare()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    _build_root(readable)
    if os.getuid() == 0:
        become_nobody(SCRATCH)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # changing users takes it back


def become_nobody(folder: str) -> None:
    """Change from root to a user and group that run nothing else and own no file but `folder`.

    Raises:
      OSError: not allowed.
    """
    passing = 61184 + int.from_bytes(os.urandom(2)) % 4096  # a range that distributions keep for such users
    for number in (passing, _NOBODY):
        with contextlib.suppress(OSError):  # a container may know fewer users
            os.chown(folder, number, number)
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            return
    raise OSError("root could not become another user.")


def _unshare() -> None:
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            linux.unshare(_NEW)
            return
    user, group = os.geteuid(), os.getegid()
    linux.unshare(_NEW | linux.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{_NOBODY} {user} 1"),
        ("gid_map", f"{_NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _build_root(readable: Sequence[str]) -> None:
    sources = {path: os.path.realpath(path) for path in (*readable, *DEVICES)}  # while links lead somewhere
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", _BASE, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=755")
    os.chdir(_BASE)
    os.mkdir(_OLD[1:])
    linux.pivot_root(".", _OLD[1:])
    os.chdir("/")
    for path, source in sources.items():
        _show(_OLD + source, path)
    os.mkdir(SCRATCH)
    linux.detach(_OLD)
    os.rmdir(_OLD)
    linux.set_read_only("/")
    linux.mount("tmpfs", SCRATCH, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, _SCRATCH_OPTIONS)


def _show(source: str, path: str) -> None:
    """Put what is at `source` at `path` of the new root; nothing if it is not there."""
    if not os.path.exists(source):
        return
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o444))
    linux.mount(source, path, None, linux.MS_BIND | linux.MS_REC)
