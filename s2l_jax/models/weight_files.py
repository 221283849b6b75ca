"""Which files a checkpoint's weights are in, and whether they are those that were there before."""

import dataclasses
import functools
import hashlib
import json
import posixpath
from typing import Any

from absl import logging
from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
EXPLICIT = "transformers_weights"  # in config.json: the file to load, where it has another name
_POINTER = b"version https://git-lfs"
_ENDS = 2**16  # bytes of each end of a tensor that are hashed


@dataclasses.dataclass(frozen=True)
class Index:
    """The files that weights are in, and of each tensor which one; nothing of that where one file has all."""

    files: list[str]
    weight_map: dict[str, str]


def index_of(directory: epath.Path) -> Index:
    """What transformers loads: the file config.json names, model.safetensors, or else shards by an index.

    Other weights beside them are said in a line.

    Raises:
      InputError: no weights, no index that can be read, or one that names files elsewhere or not there.
    """
    config = artifacts.read_json(directory / "config.json") if (directory / "config.json").exists() else {}
    names = [name for name in (WEIGHTS, INDEX) if (directory / name).exists()]
    if isinstance(config, dict) and (explicit := config.get(EXPLICIT)):
        names = [_inside(directory / "config.json", explicit)]
    if not names:
        if shards := sorted(file.name for file in directory.glob("model-*.safetensors")):
            raise InputError(
                f"{directory}: {', '.join(shards[:3])} but no {INDEX}, which says what is in them: download "
                "the checkpoint again."
            )
        raise InputError(
            f"{directory}: no {WEIGHTS} and no {INDEX}: no weights to load. A checkpoint that has "
            "pytorch_model.bin alone must be converted once, with transformers: AutoModelForCausalLM"
            ".from_pretrained(NAME).save_pretrained(FOLDER). To start from random weights set "
            "init='random'."
        )
    index = Index([names[0]], {})
    if names[0].endswith(".index.json"):
        weight_map = _read_index(directory / names[0])
        index = Index(sorted(set(weight_map.values())), weight_map)
    others = sorted(
        file.name for file in directory.glob("model*.safetensors") if file.name not in index.files
    )
    if others:
        _say_once(
            f"{directory}: the weights are those of {names[0]}, as transformers has it; {', '.join(others)} "
            "beside it is not looked at. Remove what is not meant."
        )
    return index


def identity(directory: epath.Path) -> dict[str, str]:
    """A hash of each file of weights in a directory, by its name.

    Of a file it takes the header, which has names, shapes and types, and of each tensor the first and last
    64 KiB: 40 MB for a model of 7 billion parameters. Other training changes these; a few numbers that were
    changed within a large tensor are not seen. When a file was written, and where it lies, is no part of it.

    Raises:
      InputError: no weights there, or unreadable ones.
    """
    return {name: _identity(directory / name) for name in index_of(directory).files}


def open_tensors(file: epath.Path) -> Any:
    """An opened safetensors file; raises InputError if it is none."""
    import safetensors

    if file.exists() and _is_pointer(file):
        raise InputError(f"{file}: a Git LFS pointer, not the weights: run `git lfs pull` in its repository.")
    try:
        return safetensors.safe_open(str(file), framework="numpy")
    except Exception as error:
        raise InputError(f"{file}: not a readable safetensors file ({error}).") from error


def _is_pointer(file: epath.Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER


@functools.cache
def _say_once(text: str) -> None:
    logging.warning("%s", text)


def _read_index(file: epath.Path) -> dict[str, str]:
    try:
        index = artifacts.read_json(file)
    except InputError as error:
        raise InputError(f"{file}: not an index of safetensors files ({error})") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{file}: not an index of safetensors files: it has no `weight_map`.")
    shards = sorted({_inside(file, name) for name in weight_map.values()})
    if absent := [name for name in shards if not (file.parent / name).exists()]:
        raise InputError(f"{file}: names shards that are not there: {', '.join(absent)}.")
    return weight_map


def _inside(file: epath.Path, name: Any) -> str:
    """A file's name, as `file` beside it has it; it must not lead out of their folder."""
    if not isinstance(name, str) or posixpath.isabs(name) or posixpath.normpath(name).split("/")[0] == "..":
        raise InputError(f"{file}: names {name!r}, which is no file in its folder; weights must be.")
    return name


def _identity(file: epath.Path) -> str:
    open_tensors(file)  # checks the header
    with file.open("rb") as opened:
        header = opened.read(int.from_bytes(opened.read(8), "little"))
        found, start = hashlib.sha256(header), 8 + len(header)
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        for begin, end in sorted(tensor["data_offsets"] for tensor in tensors.values()):
            for at in sorted({begin, max(begin, end - _ENDS)}):
                opened.seek(start + at)
                found.update(opened.read(min(_ENDS, end - at)))
    return found.hexdigest()
