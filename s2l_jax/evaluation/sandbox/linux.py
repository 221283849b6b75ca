"""The system calls of confinement that Python has no function for."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION_3 = 0x20080522
_CAPSET = {"x86_64": 126, "aarch64": 91}


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number.

    Raises:
      OSError: it failed.
    """
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    return _checked(result, f"system call {number}")


def prctl(option: int, argument: int) -> None:
    """Change a trait of this process.

    Raises:
      OSError: it failed.
    """
    zero = ctypes.c_ulong(0)
    result = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero)
    _checked(result, f"prctl({option})")


def drop_capabilities() -> None:
    """Give up every capability of this process, which root has.

    Raises:
      OSError: it failed.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    syscall(_CAPSET[os.uname().machine], ctypes.byref(header), ctypes.byref(none))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
