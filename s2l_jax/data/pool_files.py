"""Pool files in JSON Lines, JSON and Parquet, as streams of parsed but unchecked rows."""

import contextlib
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from etils import epath

from s2l_jax.errors import InputError

_PARQUET_BATCH = 1024  # rows decoded at a time
_PARQUET_BUFFER = 2**20  # bytes read at a time, per column
# NaN and the infinities are not JSON; like null they mean that there is no value.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


class RawRow(NamedTuple):
    """A row as parsed, or the reason why it could not be."""

    place: str  # file and line, or source and row number from 1
    value: Any
    problem: str = ""


def read_jsonl(name: str) -> Iterator[RawRow]:
    """One row per line; blank lines are passed over."""
    with _reading(name) as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            place = f"{name}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield RawRow(place, _DECODER.decode(text))
            except (ValueError, RecursionError) as error:
                yield RawRow(place, None, _not_json(error, line, number))


def read_json(name: str) -> Iterator[RawRow]:
    """One array of rows, parsed whole."""
    with _reading(name) as file:
        content = file.read()
    try:
        rows = _DECODER.decode(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        lines = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        fix = 'for one row per line set format="jsonl"' if lines else "repair the file"
        raise InputError(f"{name} is not one JSON array ({shortened(error)}); {fix}") from error
    if not isinstance(rows, list):
        fields = f" with the fields {quoted(rows)}" if isinstance(rows, dict) else ""
        raise InputError(f"{name} is one JSON {type(rows).__name__}{fields}; it must be an array of rows")
    for number, row in enumerate(rows, 1):
        yield RawRow(f"{name}:{number}", row)


def read_parquet(name: str) -> Iterator[RawRow]:
    """All columns, a batch of rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with _reading(name) as file:
            # The defaults would fetch a whole row group, which may be the whole file.
            table = pq.ParquetFile(file, buffer_size=_PARQUET_BUFFER, pre_buffer=False)
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{name}:{number}", plain(row))
    except pa.ArrowException as error:
        raise InputError(
            f"{name} is not readable as Parquet after {number} rows ({shortened(error)}); "
            "copy it again or set its format"
        ) from error


def starts_as_array(name: str) -> bool:
    """Whether a .json file holds one array; many hold JSON Lines."""
    with _reading(name) as file:
        return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def plain(value: Any) -> Any:
    """`value` in JSON's types: bytes as text, arrays as lists, NaN as None, dates as text."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    return str(value)


def shortened(value: object, length: int = 80) -> str:
    """`value` for a message: one line of at most `length` characters, texts quoted."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."


def quoted(names: Any) -> str:
    """Names for a message, the first 20 of them."""
    shown = ", ".join(f'"{name}"' for name in list(names)[:20])
    return shown + (", ..." if len(names) > 20 else "")


@contextlib.contextmanager
def _reading(name: str) -> Iterator[BinaryIO]:
    try:
        with epath.Path(name).open("rb") as file:
            if name.endswith(".gz"):
                with gzip.GzipFile(fileobj=file) as unzipped:
                    yield cast(BinaryIO, unzipped)
            else:
                yield cast(BinaryIO, file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{name} cannot be read ({error}); check its permissions, or copy it again"
        ) from error


def _not_json(error: Exception, line: bytes, number: int) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start + 1} of the line): {shortened(line)}"
    reason = str(error)
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg}, column {error.colno}"
    starts_array = number == 1 and line.lstrip().startswith(b"[")
    hint = '; if the file is one JSON array, set format="json"' if starts_array else ""
    return f"is not JSON ({reason}): {shortened(line.decode().strip())}{hint}"
