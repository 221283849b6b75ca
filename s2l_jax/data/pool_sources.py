"""From the path and format that name a pool to the sources its rows are read from."""

import functools
import os
import re
from collections.abc import Callable, Iterator

from etils import epath

from s2l_jax import artifacts
from s2l_jax.data import pool_datasets, pool_files
from s2l_jax.data.identity import path_parts, split_prefix
from s2l_jax.data.pool_files import RawRow
from s2l_jax.errors import InputError

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_FILE_READERS = {
    "jsonl": pool_files.read_jsonl,
    "json": pool_files.read_json,
    "parquet": pool_files.read_parquet,
}
FORMATS = ("auto", *_FILE_READERS, "hub", "tfds", "synthetic")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")

Source = Callable[[], Iterator[RawRow]]  # each call reads from the start


def find_sources(path: str, format: str, split: str) -> list[Source]:
    """Resolve a pool's path to its sources, in reading order, without reading rows.

    The arguments are those of `pool.read_rows`. The format "auto" goes by prefix, existence and file
    name ending, and for a .json file by its first character.

    Raises:
      InputError: unknown format, missing file, a glob without matches, a file named twice.
    """
    if format not in FORMATS:
        raise InputError(f"format={format!r} is not known; choose one of {', '.join(FORMATS)}")
    if format == "synthetic" or (format == "auto" and path in pool_datasets.SYNTHETIC):
        return [functools.partial(pool_datasets.read_synthetic, path or "synthetic")]
    sources: dict[str, Source] = {}
    for part in path_parts(path):
        if not part:
            raise InputError(f"the pool's path is {path!r}; name a file, a glob or a dataset")
        for name, source in _resolve(part, format, split):
            if name in sources:
                raise InputError(f"{path!r} names {name} twice; name it once")
            sources[name] = source
    return list(sources.values())


def _resolve(part: str, format: str, split: str) -> Iterator[tuple[str, Source]]:
    prefix, rest = split_prefix(part)
    if prefix and format in ("auto", prefix):
        part, format = rest, prefix
    elif format == "auto" and _is_hub_id(part):
        format = "hub"
    path = epath.Path(part)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        yield part, functools.partial(pool_datasets.read_saved_dataset, part, split)
    elif format == "tfds" or (path / "features.json").exists():
        yield part, functools.partial(pool_datasets.read_tfds, part, split)
    elif format == "hub":
        yield part, functools.partial(pool_datasets.read_hub, part, split)
    else:
        for name in _files(part):
            kind = _kind_of(name) if format == "auto" else format
            yield name, functools.partial(_FILE_READERS[kind], name)


def _is_hub_id(part: str) -> bool:
    """ORG/NAME or ORG/NAME:CONFIG that cannot be a local file, as there is no folder ORG."""
    path = epath.Path(part)
    return (
        _HUB_ID.fullmatch(part) is not None
        and path.suffix not in (*_SUFFIXES, ".gz")
        and not path.parent.exists()
    )


def _files(part: str) -> list[str]:
    path = epath.Path(part)
    if path.is_dir():
        patterns = {f"{part.rstrip('/')}/*{_ending(file.name)}" for file in path.iterdir()}
        known = sorted(pattern for pattern in patterns if not pattern.endswith("*"))
        raise InputError(
            f"{part} is a directory but not a saved dataset; "
            f"give {' or '.join(known) or 'the path of a file'}"
        )
    if path.exists():
        return [part]
    if not artifacts.is_pattern(part):
        raise InputError(f"{part} does not exist; {_help_finding(path)}")
    files = artifacts.matching_files(part)
    if not files:
        raise InputError(f"{part} matches no file; check the pattern")
    return [str(file) for file in files]


def _help_finding(path: epath.Path) -> str:
    """What can be said to someone whose file is missing."""
    help = artifacts.near(path)
    return help if path.suffix or help.endswith("?") else f"{help}; for a hub dataset write hub:{path}"


def _ending(name: str) -> str:
    """The known ending of a file name, with .gz where it has that; "" for none."""
    stem, suffix = os.path.splitext(name)
    if suffix == ".gz":
        inner = _ending(stem)
        return f"{inner}.gz" if inner not in ("", ".parquet") else ""
    return suffix if suffix in _SUFFIXES else ""


def _kind_of(name: str) -> str:
    kind = _SUFFIXES.get(_ending(name).removesuffix(".gz"))
    if kind is None:
        raise InputError(
            f"{name} has none of the endings {', '.join(_SUFFIXES)}; "
            f"set format to one of {', '.join(_FILE_READERS)}"
        )
    if kind == "json" and not pool_files.starts_as_array(name):
        return "jsonl"
    return kind
