"""Pools that other libraries hold: hub datasets, saved datasets, TFDS, and the embedded one."""

from collections.abc import Iterator

from etils import epath

from s2l_jax.data.pool_files import RawRow, plain, quoted, shortened
from s2l_jax.data.tfds_folders import check_name, open_builder
from s2l_jax.errors import InputError

SYNTHETIC = ("synthetic", "synthetic-base")


def read_hub(name: str, split: str) -> Iterator[RawRow]:
    """A dataset of the Hugging Face hub, ORG/NAME or ORG/NAME:CONFIG.

    It is streamed: nothing is stored, a limit reads no further, and memory stays bounded.
    """
    import datasets

    repo, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(repo, config or None, split=split, streaming=True)
        for number, row in enumerate(rows, 1):
            yield RawRow(f"hub:{name}[{split}]:{number}", plain(row))
    except Exception as error:  # the HTTP client's errors and those of datasets share no base class
        raise InputError(
            f"hub dataset {name!r}, split {split!r}, cannot be read "
            f"({type(error).__name__}: {shortened(error, 300)}). Check the name, which is no "
            f"local dataset either, and the connection. Without a connection use local files: run "
            f"`hf download {repo} --repo-type dataset --local-dir DIR` where there is one, copy "
            f"DIR, and set the path to its files, such as DIR/*.json or DIR/data/*.parquet"
        ) from error


def read_saved_dataset(path: str, split: str) -> Iterator[RawRow]:
    """A directory made by `save_to_disk` of a datasets.Dataset or DatasetDict, memory-mapped."""
    import datasets

    try:
        loaded = datasets.load_from_disk(path)
    except Exception as error:  # Arrow, JSON and file errors alike
        raise InputError(
            f"saved dataset {path} cannot be read "
            f"({type(error).__name__}: {shortened(error, 300)}); save it again"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise InputError(
                f'{path} has no split "{split}"; its splits are {quoted(loaded)}. A pool is read at '
                "pool.split, held-out rows at test: save another by itself, or as a file"
            )
        loaded = loaded[split]
    for number, row in enumerate(loaded, 1):
        yield RawRow(f"{path}[{split}]:{number}", plain(row))


def read_tfds(name: str, split: str) -> Iterator[RawRow]:
    """A TFDS dataset by name, or its prepared directory; read by random access, no TensorFlow."""
    import tensorflow_datasets as tfds

    try:
        if epath.Path(name).is_dir():
            rows = open_builder(name).as_data_source(split=split)
        else:
            check_name(name)
            rows = tfds.data_source(name, split=split)
        for number in range(len(rows)):
            yield RawRow(f"tfds:{name}[{split}]:{number + 1}", plain(rows[number]))
    except InputError:
        raise
    except Exception as error:  # registry, download and reading errors share no base class
        raise InputError(
            f"TFDS dataset {name!r}, split {split!r}, cannot be read "
            f"({type(error).__name__}: {shortened(error, 300)}). Check the name and the split; the "
            f'dataset must be prepared with file_format="array_record"; one prepared elsewhere is '
            f"read as tfds:DIR/NAME/VERSION"
        ) from error


def read_synthetic(name: str) -> Iterator[RawRow]:
    """One of the embedded pools: "synthetic", or what the base checkpoints were trained on."""
    from s2l_jax.data.datasets.synthetic import base_rows, pool_rows

    if name not in SYNTHETIC:
        raise InputError(f"no embedded pool {name!r}; there are {' and '.join(SYNTHETIC)}")
    for number, row in enumerate(pool_rows() if name == "synthetic" else base_rows(), 1):
        yield RawRow(f"{name}:{number}", row)
