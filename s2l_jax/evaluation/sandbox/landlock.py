"""Landlock: files and network that this process gives up for good; needs no privileges (Linux 5.13)."""

import ctypes
import os
import sys
from collections.abc import Sequence

from s2l_jax.evaluation.sandbox import linux

# Numbers and bits of Linux's <linux/landlock.h>.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_RIGHTS = (1 << 13) - 1
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


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


def restrict(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Give up all files but those below some paths, and what else the kernel's version can take away.

    From version 4 on TCP goes too, from 6 on signals to processes outside and abstract sockets. Device,
    socket and link files cannot be made even in writable folders, and nothing can be executed.

    Args:
      readable: files and folders to be read; missing ones are passed over.
      writable: folders to be read and written.

    Raises:
      OSError: Landlock is missing or failed.
    """
    known = version()
    rights = _FIRST_RIGHTS
    for since, bit in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= bit if known >= since else 0
    network = _BIND_TCP | _CONNECT_TCP if known >= 4 else 0
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if known >= 6 else 0
    ruleset = _Ruleset(rights, network, scoped)
    # An older kernel refuses what it does not know, even if it is zero and longer than its own structure.
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    fd = linux.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        never = _EXECUTE | _MAKE_CHAR | _MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _MAKE_SYM | _IOCTL_DEV
        for path in readable:
            _allow(fd, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(fd, path, rights & ~never)
        linux.syscall(_RESTRICT_SELF, ctypes.c_int(fd), ctypes.c_uint32(0))
    finally:
        os.close(fd)


def _allow(ruleset_fd: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _PathRule(rights if os.path.isdir(path) else rights & _FILE_RIGHTS, fd)
        linux.syscall(
            _ADD_RULE,
            ctypes.c_int(ruleset_fd),
            ctypes.c_int(_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(fd)
