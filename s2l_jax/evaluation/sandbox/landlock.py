"""Landlock: files that this process gives up for good; needs no privileges.

The rights are those of version 3 of its interface (Linux 6.2), the first that keeps files from being
truncated, on every kernel: what later versions add (network, signals) `seccomp` refuses already.
"""

import ctypes
import os
import sys
from collections.abc import Sequence

from s2l_jax.evaluation.sandbox import linux

NEEDED = 3  # version of the interface

# Numbers and bits of Linux's <linux/landlock.h>.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _MAKE_DIR, _MAKE_FILE, _TRUNCATE = (
    1 << 1,
    1 << 2,
    1 << 3,
    1 << 7,
    1 << 8,
    1 << 14,
)
_ALL = (1 << 15) - 1
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def version() -> int:
    """Of Landlock in the running kernel; 0: none, or switched off."""
    if sys.platform != "linux":
        return 0
    try:
        return linux.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0


def make_ruleset(readable: Sequence[str], listable: Sequence[str], writable: Sequence[str]) -> int:
    """A file descriptor of rules that leave some paths, with what is below them, and nothing else.

    In writable folders files and folders can be made and changed, but not removed or renamed: so all that
    a process wrote is found there. Nothing can be executed.

    Args:
      readable: files and folders; missing ones are passed over.
      listable: folders whose names may be read, with those of the folders below.
      writable: files and folders to be read and written.

    Raises:
      OSError: Landlock is missing or failed.
    """
    handled = ctypes.c_uint64(_ALL)
    fd = linux.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), ctypes.c_uint32(0))
    for paths, rights in (
        (readable, _READ_FILE | _READ_DIR),
        (listable, _READ_DIR),
        (writable, _OF_FILES | _READ_DIR | _MAKE_DIR | _MAKE_FILE),
    ):
        for path in paths:
            _allow(fd, path, rights)
    return fd


def restrict(ruleset: int) -> None:
    """Give up what the rules do not leave; it takes `PR_SET_NO_NEW_PRIVS`.

    Raises:
      OSError: it failed.
    """
    linux.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _PathRule(rights if os.path.isdir(path) else rights & _OF_FILES, fd)
        kind, zero = ctypes.c_int(_PATH_BENEATH), ctypes.c_uint32(0)
        linux.syscall(_ADD_RULE, ctypes.c_int(ruleset), kind, ctypes.byref(rule), zero)
    finally:
        os.close(fd)
