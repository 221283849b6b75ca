"""Atomic writing, and reading, of a run's files, on local disks and object stores alike."""

import atexit
import contextlib
import difflib
import fnmatch
import glob
import io
import itertools
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec.config
import numpy as np
from etils import epath

from s2l_jax.errors import InputError

_PART = 2**24  # bytes copied at a time
_LOOKED_AT = 1000  # names that one that is missing is compared with
_REMOTE = ("gs://", "s3://")
_WILDCARD = re.compile(r"[*?\[]")
for _protocol in ("gs", "s3"):
    # Other processes write too, and so does tensorstore: what a folder held before may be out of date.
    fsspec.config.conf.setdefault(_protocol, {}).setdefault("use_listings_cache", False)
_copies: dict[Any, epath.Path] = {}  # what `local_copy` made, by what it was made of


def near(path: epath.PathLike) -> str:
    """Where something that is not there may be: the name beside it that is most like it, or what there is."""
    path = epath.Path(path)
    if not path.parent.is_dir():
        return f"neither does its folder {path.parent}"
    try:
        files = itertools.islice(path.parent.iterdir(), _LOOKED_AT)
        names = sorted(file.name for file in files if not file.name.startswith("."))
    except OSError as error:
        return f"its folder {path.parent} cannot be read ({error.strerror})"
    if alike := difflib.get_close_matches(path.name, names, n=1):
        return f"did you mean {path.parent / alike[0]}?"
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"its folder {path.parent} holds {shown or 'nothing'}"


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is on an object store."""
    return os.fspath(path).startswith(_REMOTE)


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[epath.Path]:
    """A local file to write that becomes `path` at the end: a reader sees it whole, or the one before it.

    On an object store it is uploaded then. After an exception nothing of it is left.
    """
    path = epath.Path(path)
    with writing_folder(path.parent) as local:
        temporary = local / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with failing_as_oserror(path):
                yield temporary
                temporary.replace(local / path.name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


_FULL = ("No space left", "Disk quota", "File too large")  # of whatever a library raises


@contextlib.contextmanager
def failing_as_oserror(path: epath.PathLike) -> Iterator[None]:
    """Have a failure to write `path` raise an OSError that names it.

    Libraries leave the name out, or raise errors of their own: safetensors, tokenizers, tensorstore.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or str(path) in str(error) or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if library == "safetensors" or any(text in str(error) for text in _FULL):
            raise OSError(f"{os.fspath(path)} could not be written ({error})") from error
        raise


def conditional_files(folder: epath.PathLike) -> Any:
    """The files below a folder as a tensorstore KvStore, whose writes can depend on a file's generation."""
    import tensorstore as ts

    return ts.KvStore.open(kvstore(folder)).result()


def kvstore(folder: epath.PathLike) -> dict[str, str]:
    """A folder as tensorstore names it; not as a URL, which gives some characters of a path a meaning."""
    text = epath.Path(folder).as_posix()
    if not is_remote(text):
        return {"driver": "file", "path": f"{os.path.abspath(text)}/"}
    protocol, _, rest = text.partition("://")
    bucket, _, path = rest.partition("/")
    driver = {"gs": "gcs", "s3": "s3"}[protocol]
    return {"driver": driver, "bucket": bucket, "path": f"{path}/" if path else ""}


def remove_unfinished(folder: epath.PathLike) -> None:
    """Remove what killed processes left of large files that they were writing in a folder."""
    for file in files_in(folder, ".*.tmp"):
        file.unlink(missing_ok=True)


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Write `data` atomically."""
    with writing(path) as file:
        file.write_bytes(data)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically; refuses NaN and infinity, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=plain) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Parse a JSON file; raises InputError, which names it, where it is none."""
    try:
        return json.loads(epath.Path(path).read_text())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}).") from error


def write_npy(path: epath.PathLike, array: np.ndarray) -> None:
    """Write one array in NumPy's .npy format, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_npy(path: epath.PathLike, *, mmap: bool = False) -> np.ndarray:
    """Read a .npy file; with `mmap` and a local path the array stays on disk.

    Raises:
      InputError: it is none, or says that it holds more than memory does.
    """
    path = epath.Path(path)
    local = os.fspath(path)
    with naming(path, ".npy file"):
        if os.path.exists(local):
            return np.load(local, mmap_mode="r" if mmap else None, allow_pickle=False)
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)


@contextlib.contextmanager
def naming(path: epath.PathLike, what: str) -> Iterator[None]:
    """Turn whatever a damaged file makes a reader raise into an InputError with its name."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable {what} ({error}).") from error


def share(file: epath.PathLike) -> None:
    """Give a local file the mode that new files get; some libraries write for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(file, 0o666 & ~mask)


def remove_leftovers(folder: epath.PathLike) -> None:
    """Remove the files that killed processes were `writing`, anywhere below a folder that nobody else has."""
    if is_remote(folder):  # where files are never half made
        return
    for root, _, files in os.walk(folder):
        for file in files:
            if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", file, re.DOTALL):
                os.unlink(os.path.join(root, file))


def files_in(folder: epath.PathLike, pattern: str = "*") -> list[epath.Path]:
    """What is directly in a folder and has a name of this pattern, sorted; the folder itself may have any."""
    folder = epath.Path(folder)
    found = folder.iterdir() if folder.exists() else ()
    return sorted(each for each in found if fnmatch.fnmatchcase(each.name, pattern) and each != folder)


def files_under(folder: epath.PathLike) -> list[epath.Path]:
    """Every file below a folder, sorted."""
    folder = epath.Path(folder)
    if is_remote(folder):
        return [file for file, _ in _remote_files(folder)]
    return sorted(root / name for root, _, names in folder.walk() for name in names)


def _remote_files(folder: epath.Path) -> list[tuple[epath.Path, tuple[int, int]]]:
    """Files below a folder of an object store, sorted, each with its length and time of change."""
    files: list[tuple[epath.Path, tuple[int, int]]] = []
    for entry in folder.iterdir():
        if entry == folder:  # a store may list an empty object that stands for the folder
            continue
        stat = entry.stat()
        files += _remote_files(entry) if stat.is_directory else [(entry, (stat.length, stat.mtime))]
    return sorted(files)


def is_pattern(path: str) -> bool:
    """Whether a path has wildcards."""
    return _WILDCARD.search(path) is not None


def matching_files(pattern: str) -> list[epath.Path]:
    """The files that a glob pattern stands for, sorted; `**` for local paths only.

    Raises:
      InputError: `**` in a path on an object store.
    """
    return [path for path in _matching(pattern) if is_remote(pattern) or not path.is_dir()]


def matching_folders(pattern: str) -> list[epath.Path]:
    """The folders that a glob pattern stands for; as `matching_files`."""
    return [path for path in _matching(pattern) if path.is_dir()]


def _matching(pattern: str) -> list[epath.Path]:
    if not is_remote(pattern):
        return [epath.Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    if "**" in pattern:
        raise InputError(f"{pattern}: `**` works for local files only; write one `*` for each level.")
    parts = epath.Path(pattern).parts
    first = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    if first == len(parts):
        return []
    return sorted(epath.Path(*parts[:first]).glob("/".join(parts[first:])))


def move_folder(source: epath.PathLike, target: epath.PathLike) -> None:
    """Move a folder; on an object store file by file."""
    source, target = epath.Path(source), epath.Path(target)
    if not is_remote(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    publish(source, target)
    source.rmtree()


def publish(source: epath.PathLike, target: epath.PathLike) -> None:
    """Copy the files below a folder to an object store, where each appears when it is whole."""
    source, target = epath.Path(source), epath.Path(target)
    for file in files_under(source):
        _copy(file, target / file.relative_to(source).as_posix())


@contextlib.contextmanager
def writing_folder(folder: epath.PathLike) -> Iterator[epath.Path]:
    """A local folder to write in: `folder` itself, or one that is published there at the end.

    For libraries that write local files only. Nothing is published after an exception.
    """
    folder = epath.Path(folder)
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="s2l_jax_") as temporary:
        yield epath.Path(temporary)
        publish(temporary, folder)


@contextlib.contextmanager
def reading_folder(folder: epath.PathLike) -> Iterator[epath.Path]:
    """A local folder to read from: `folder` itself, or a copy that is removed at the end."""
    folder = epath.Path(folder)
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="s2l_jax_") as temporary:
        yield _download(folder, files_under(folder), epath.Path(temporary))


def local_copy(folder: epath.PathLike, patterns: Sequence[str] = ("*",)) -> epath.Path:
    """`folder` itself when it is local, else a copy of the files that match a pattern.

    It is kept until this process ends, in the system's temporary folder, which TMPDIR moves. A folder
    whose files have not changed is copied once.
    """
    folder = epath.Path(folder)
    if not is_remote(folder):
        return folder
    listed = [(f, of) for f, of in _remote_files(folder) if any(fnmatch.fnmatch(f.name, p) for p in patterns)]
    key = (folder, tuple(listed))
    if key not in _copies:
        temporary = tempfile.mkdtemp(prefix="s2l_jax_")
        if not _copies:
            atexit.register(remove_copies)
        _copies[key] = epath.Path(temporary)
        try:
            _download(folder, [file for file, _ in listed], _copies[key])
        except BaseException:
            shutil.rmtree(_copies.pop(key), ignore_errors=True)
            raise
    return _copies[key]


def remove_copies() -> None:
    """Remove what `local_copy` keeps; for a process that ends without Python's own end."""
    while _copies:
        shutil.rmtree(_copies.popitem()[1], ignore_errors=True)


def _download(folder: epath.Path, files: Sequence[epath.Path], target: epath.Path) -> epath.Path:
    for file in files:
        copy = target / file.relative_to(folder).as_posix()
        copy.parent.mkdir(parents=True, exist_ok=True)
        _copy(file, copy)
    return target


def _copy(source: epath.Path, target: epath.Path) -> None:
    try:
        with source.open("rb") as read, target.open("wb") as written:
            shutil.copyfileobj(read, written, _PART)
    except OSError:
        raise
    except Exception as error:  # a store's client has its own
        raise OSError(f"{target} could not be written ({error})") from error


def plain(value: Any) -> Any:
    """NumPy values as JSON has them; a `default` for json.dumps."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")
