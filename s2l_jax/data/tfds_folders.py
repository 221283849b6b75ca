"""TFDS folders, opened only where they name none but TFDS's own classes: TFDS imports what a folder names."""

import json
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError

_FEATURES = "features.json"
_OWN = re.compile(r"tensorflow_datasets(\.\w+)+")
_SPELLINGS = ("pythonClassName", "python_class_name")
_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d.*]+)?")  # no namespace: those are downloaded with their code


def open_builder(folder: epath.PathLike) -> Any:
    """The TFDS builder of a prepared dataset's folder.

    Raises:
      InputError: its features.json names a class that is not TFDS's, or is no JSON.
    """
    import tensorflow_datasets as tfds

    check_classes(epath.Path(folder) / _FEATURES)
    return tfds.builder_from_directory(str(folder))


def check_name(name: str) -> None:
    """Refuse the name of a dataset that TFDS would run foreign code for.

    Raises:
      InputError: it has a namespace, or the prepared dataset of that name is what `check_classes` refuses.
    """
    from tensorflow_datasets.core.utils import file_utils

    if not _NAME.fullmatch(name):
        raise InputError(
            f"tfds:{name}: neither a folder nor the name of a TFDS dataset, NAME, NAME/CONFIG or "
            "NAME:VERSION (names with a namespace are not read: TFDS would run code that it downloads)."
        )
    for folder in file_utils.list_data_dirs():
        for file in artifacts.files_under(epath.Path(folder) / re.split("[/:]", name)[0]):
            if file.name == _FEATURES:
                check_classes(file)


def check_classes(file: epath.Path) -> None:
    """Refuse a features.json with classes from elsewhere than TFDS, before TFDS imports them.

    Raises:
      InputError: there is one, named with the file; or the file is no JSON.
    """
    if not file.exists():
        return  # TFDS says so itself
    try:
        found = list(_class_names(json.loads(file.read_text())))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({error}): prepare the dataset again.") from error
    for name in found:
        if not (isinstance(name, str) and _OWN.fullmatch(name)):
            raise InputError(
                f"{file} names the class {name!r}, which TFDS would import: only classes of "
                "tensorflow_datasets are read, as a data folder must not run code. Prepare the dataset with "
                "those, or export it as Parquet or JSON Lines."
            )


def _class_names(value: Any) -> Iterator[Any]:
    """What TFDS would look up, wherever it stands: as it is written now, and as it was before TFDS 4.4."""
    if isinstance(value, dict):
        yield from (value[key] for key in _SPELLINGS if key in value)
        if isinstance(value.get("type"), str) and "content" in value:  # else it is a column of that name
            yield value["type"]
        for each in value.values():
            yield from _class_names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _class_names(each)
    elif isinstance(value, str) and value.lstrip().startswith(("{", "[")):  # JSON within JSON
        try:
            inner = json.loads(value)
        except ValueError:
            return
        yield from _class_names(inner)
