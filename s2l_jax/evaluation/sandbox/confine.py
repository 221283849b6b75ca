"""What a process gives up before it runs what nobody has checked."""

import contextlib
import glob
import os
import resource
import signal
import sys
from collections.abc import Iterable, Sequence

from s2l_jax.evaluation.sandbox import landlock, linux, seccomp

_OPEN_FILES = 64
_FILE_BYTES = 16 * 2**20
_DEVICES = ("/dev/zero", "/dev/random", "/dev/urandom")
_DATA = ("/usr/share/zoneinfo", "/usr/lib/locale", "/etc/ld.so.cache")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")  # where the loader looks
_OTHERS = ("site-packages", "dist-packages")  # what is installed, inside Python's own library


def missing() -> str:
    """What this machine lacks to confine a process, in a few words; empty if it lacks nothing."""
    if sys.platform != "linux":
        return f"it takes Linux, and this is {sys.platform}"
    if (version := landlock.version()) < landlock.NEEDED:
        has = f"has version {version}" if version else "has none, or has it switched off"
        return f"it takes Landlock of version {landlock.NEEDED} (Linux 6.2), and this kernel {has}"
    if not seccomp.supported():
        return f"it takes seccomp filters on {' or '.join(seccomp.MACHINES)}, and this machine has none"
    return ""


def make_ruleset(library: Sequence[str], packages: Sequence[str], writable: Sequence[str] = ()) -> int:
    """The Landlock rules of a child: Python's own library and some packages to read, a folder to write.

    Args:
      library: `sys.path` of a Python without packages.
      packages: their folders.
      writable: folders.

    Raises:
      OSError: see `landlock.make_ruleset`.
    """
    readable = [*_DATA, *_DEVICES, *packages, *(f"{package}.libs" for package in packages)]
    for folder in filter(os.path.isdir, library):
        readable += [entry.path for entry in os.scandir(folder) if entry.name not in _OTHERS]
    readable += [path for path in library if os.path.isfile(path)]
    readable += _shared_libraries()
    return landlock.make_ruleset(readable, library, [os.devnull, *writable])


def _shared_libraries() -> Iterable[str]:
    """The files that modules of Python's own library may be linked to."""
    multiarch = getattr(sys.implementation, "_multiarch", "")
    folders = {os.path.join(sys.base_prefix, "lib"), *_LIBRARIES}
    folders |= {os.path.join(folder, multiarch) for folder in _LIBRARIES}
    found = {path for folder in folders for path in glob.iglob(f"{glob.escape(folder)}/*.so*")}
    return {real for path in found if os.path.isfile(real := os.path.realpath(path))}


def give_up_everything(ruleset: int | None, *, seconds: float, memory: int) -> None:
    """Set limits, drop privileges, and install Landlock and seccomp; none can be undone.

    Args:
      ruleset: see `make_ruleset`; None: only the limits.
      seconds: of CPU time.
      memory: bytes of address space.

    Raises:
      OSError: something could not be given up.
    """
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    for name, limit in (
        ("CPU", int(seconds) + 1),
        ("AS", memory),
        ("NOFILE", _OPEN_FILES),
        ("FSIZE", _FILE_BYTES),
        ("CORE", 0),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
    ):
        _limit(name, limit)
    if ruleset is None:
        return
    linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(ruleset)
    os.close(ruleset)
    seccomp.install()


def _limit(name: str, limit: int) -> None:
    what = getattr(resource, f"RLIMIT_{name}", None)
    if what is None:
        return
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with contextlib.suppress(*(() if sys.platform == "linux" else (ValueError, OSError))):
        resource.setrlimit(what, (limit, limit))
