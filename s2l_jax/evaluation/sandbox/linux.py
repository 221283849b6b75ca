"""The system calls of confinement that Python has no function for."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOSUID = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_CAPABILITY_VERSION_3 = 0x20080522

# Calls that have one number on x86_64 and aarch64; pivot_root and capset, older, have two.
_MOUNT_SETATTR = 442
_OLD = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number.

    Raises:
      OSError: it failed.
    """
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    return _checked(result, f"system call {number}")


def prctl(option: int, argument: object = 0) -> None:
    """Change a trait of this process.

    Raises:
      OSError: it failed.
    """
    if isinstance(argument, int):
        argument = ctypes.c_ulong(argument)
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(ctypes.c_int(option), argument, zero, zero, zero), f"prctl({option})")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones.

    Raises:
      OSError: it failed.
    """
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount `source` on `target`.

    Raises:
      OSError: it failed.
    """
    names = [name.encode() if name is not None else None for name in (source, target, kind)]
    result = _libc.mount(*names, ctypes.c_ulong(flags), options.encode())
    _checked(result, f"mount on {target}")


def set_read_only(target: str) -> None:
    """Make a mount and those below it read-only, and their set-user-id bits void.

    Raises:
      OSError: it failed; Linux before 5.12.
    """
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    flags = ctypes.c_uint(_AT_RECURSIVE)
    at = ctypes.c_int(_AT_FDCWD)
    syscall(_MOUNT_SETATTR, at, target.encode(), flags, ctypes.byref(attributes), size)


def detach(target: str) -> None:
    """Unmount, now for whoever looks and later for whoever still holds it.

    Raises:
      OSError: it failed.
    """
    _checked(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"unmounting {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root, and hang the old one at `old`, below it.

    Raises:
      OSError: it failed, or the architecture is not known.
    """
    syscall(_old_number("pivot_root"), new.encode(), old.encode())


def drop_capabilities() -> None:
    """Give up every capability of this process.

    Raises:
      OSError: it failed, or the architecture is not known.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    syscall(_old_number("capset"), ctypes.byref(header), ctypes.byref(none))


def _old_number(name: str) -> int:
    numbers = _OLD.get(os.uname().machine)
    if numbers is None:
        raise OSError(f"{name} on {os.uname().machine}: its number is not known here.")
    return numbers[name]


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
