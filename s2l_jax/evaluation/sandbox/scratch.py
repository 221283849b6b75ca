"""The throwaway folder of programs: one for each server, emptied after each program, removed at the end."""

import contextlib
import fcntl
import itertools
import os
import stat
import tempfile
import time

PREFIX = "s2l_jax_sandbox_"
MOST_BYTES = 64 * 2**20  # of all files
MOST_ENTRIES = 4096  # files and folders
_DEEPEST = 256  # folders within each other
_SECONDS = 5.0  # that emptying may take

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Scratch:
    """A new folder in `parent`; this process has a lock on it, which ends when it does, however it ends."""

    def __init__(self, parent: str) -> None:
        lock = None
        while lock is None:  # another process may have taken it for one that was left behind
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            lock = _locked(self.path)
        self._lock = lock

    def empty(self) -> bool:
        """Remove all in it; whether that was done, in the time there is for it."""
        try:
            return _empty(self.path, time.monotonic() + _SECONDS)
        except OSError:  # an unconfined program moved it away
            return False

    def close(self) -> None:
        """Remove it, as far as there is time for."""
        if self.empty():
            os.rmdir(self.path)
        self.leave()

    def leave(self) -> None:
        """Leave it, with what is in it, to the next process that clears."""
        os.close(self._lock)

    def excess(self) -> str:
        """What there is too much of in it, in words; empty where there is not."""
        try:
            folders, entries, size = [os.open(self.path, _FOLDER)], 0, 0
        except OSError:  # an unconfined program moved it away
            return ""
        listings = [os.scandir(folders[0])]
        try:
            while listings:
                entry = next(listings[-1], None)
                if entry is None:
                    listings.pop().close()
                    os.close(folders.pop())
                    continue
                entries += 1
                if entries > MOST_ENTRIES:
                    return f"made more than {MOST_ENTRIES} files"
                try:
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(_opened(entry.name, folders[-1]))
                        listings.append(os.scandir(folders[-1]))
                except FileNotFoundError:  # an unconfined program removes what it likes
                    continue
                size += max(found.st_size, 512 * found.st_blocks)
                if size > MOST_BYTES:
                    return f"wrote more than {MOST_BYTES} bytes to files"
                if len(folders) > _DEEPEST:
                    return f"made more than {_DEEPEST} folders within each other"
        finally:
            for listing in listings:
                listing.close()
            for folder in folders:
                os.close(folder)
        return ""


def _opened(name: str, parent: int) -> int:
    """A file descriptor of a folder, whatever its permissions."""
    with contextlib.suppress(PermissionError):
        return os.open(name, _FOLDER, dir_fd=parent)
    os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)


def clear(parent: str) -> None:
    """Remove the folders that killed processes left in `parent`, as far as there is time for."""
    deadline = time.monotonic() + _SECONDS
    for entry in os.scandir(parent):
        with contextlib.suppress(OSError):
            if entry.name.startswith(PREFIX) and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                lock = _locked(entry.path)
                if lock is not None:
                    try:
                        if _empty(entry.path, deadline):
                            os.rmdir(entry.path)
                    finally:
                        os.close(lock)


def _locked(path: str) -> int | None:
    """The folder's lock, a file descriptor; None where another process has it or the folder is gone."""
    try:
        fd = os.open(path, _FOLDER)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(path):
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def _empty(folder: str, deadline: float) -> bool:
    """Remove all in the folder, however deep and whatever its permissions; whether that was done in time.

    What is in a folder is moved up next to it before it is removed: so no path gets long, while a hostile
    program can nest folders deeper than paths and recursion go.
    """
    if not _is_open_folder(folder):
        return False
    numbers = itertools.count()
    while names := os.listdir(folder):
        for name in names:
            path = os.path.join(folder, name)
            is_folder = _is_open_folder(path)
            for inner in os.listdir(path) if is_folder else ():
                if time.monotonic() > deadline:
                    return False
                source = os.path.join(path, inner)
                _is_open_folder(source)  # moving a folder changes what is in it: its `..`
                target = next(t for n in numbers if not os.path.lexists(t := os.path.join(folder, f"{n}")))
                os.rename(source, target)
            if time.monotonic() > deadline:
                return False
            (os.rmdir if is_folder else os.unlink)(path)
    return True


def _is_open_folder(path: str) -> bool:
    """Whether it is a folder, which is then made accessible."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return False
    os.chmod(path, 0o700)
    return True
