"""How the C library gives memory to a model on CPUs."""

import ctypes
import sys

# Of glibc's malloc.h, with the values to set.
_OPTIONS = {
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # keep freed memory at the heap's end
    "M_TOP_PAD": (-2, 2**28),  # grow the heap by 256 MiB at a time
    "M_MMAP_MAX": (-4, 0),  # large arrays come from the heap as well
    "M_ARENA_MAX": (-8, 1),  # one heap, so that what one thread frees another can use
}


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed, where XLA works on CPUs; whether it does.

    By default glibc maps every array above 32 MiB afresh and unmaps it when it is freed, so a program's
    temporary arrays cost a page fault for every 4 KiB, each time it runs. The process's memory
    stays at its peak then. Does nothing on other C libraries. Call it before large arrays exist.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    done = [mallopt is not None and mallopt(*option) for option in _OPTIONS.values()]
    return all(done)
