"""The throwaway folder of a program: made empty, and emptied whatever was left in it."""

import itertools
import os
import stat


def make(folder: str) -> None:
    """Make the folder, for its owner alone."""
    os.mkdir(folder, 0o700)


def wipe(folder: str) -> None:
    """Remove the folder and all in it.

    Raises:
      OSError: see `empty`.
    """
    empty(folder)
    os.rmdir(folder)


def empty(folder: str) -> None:
    """Remove all in the folder, however deep and whatever its permissions.

    What is in a folder is moved up next to it before it is removed: so no path gets long, while a hostile
    program can nest folders deeper than paths and recursion go.

    Raises:
      OSError: something could not be removed.
    """
    os.chmod(folder, 0o700)
    numbers = itertools.count()
    while names := os.listdir(folder):
        for name in names:
            path = os.path.join(folder, name)
            if not _is_folder(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                source = os.path.join(path, inner)
                if _is_folder(source):
                    os.chmod(source, 0o700)  # moving a folder changes what is in it: its `..`
                target = next(t for n in numbers if not os.path.lexists(t := os.path.join(folder, f"{n}")))
                os.rename(source, target)
            os.rmdir(path)


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)
