"""The prepared pool: every row tokenised once, on disk as a TFDS array_record dataset."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int32, Int64

from s2l_jax import artifacts, integrity
from s2l_jax.console import quiet_libraries
from s2l_jax.data.chat import CHAT, template_identity
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prompts import render
from s2l_jax.data.responses import Gaps, num_loss_tokens
from s2l_jax.data.tfds_folders import open_builder
from s2l_jax.data.tokens import CommonPrefix, TokenizedExample, tokenize
from s2l_jax.errors import InputError

_CHUNK = 1024  # rows tokenised, or read back, at a time
_LISTED = 20  # ids named in the manifest for each kind of problem
_SPLIT = "pool"
_FOLDER = "s2l_pool/1.0.0"  # TFDS: the builder's name and version
_DESCRIBED = ("dataset_info.json", "features.json")  # of the dataset
_READ = ("lengths", "prompt_lengths", "gaps", "ids", "sources")  # arrays that are read back


@dataclasses.dataclass(frozen=True)
class TokenizeSettings:
    """How rows become tokens."""

    prompt: str
    boundary: str
    max_length: int
    turns: str = "last"


class PreparedPool:
    """A pool on disk: row i of the pool is record i.

    From an object store the rows are copied to this machine when the first of them is read, and not by who
    reads only the arrays.

    Attributes:
      fingerprint: tells this data, tokeniser and settings from others.
      manifest: counts, the names of the sources, and the settings it was made with.
      lengths, prompt_lengths: int32 [N], tokens; memory-mapped.
      gaps: tokens without a loss between the responses of a row.
      ids: uint64 [N]; memory-mapped.
      source_codes: int32 [N], places in `source_names`; memory-mapped.
      source_names: the sources in order of first appearance.
      common_prefix: int32 [P], the tokens that all rows begin with.

    Raises:
      InputError: a file that is gone or not as it was written. Records have checksums of their own, which
        are compared as they are read.
    """

    def __init__(self, path: epath.PathLike):
        self._path = epath.Path(path)
        self.fingerprint = self._path.name
        # NumPy maps local files.
        path = artifacts.local_copy(path, [f"{name}.npy" for name in _READ] + list(_DESCRIBED))
        self.manifest = integrity.read_json(self._path / "manifest.json", self._way_out)
        integrity.check(path, self.manifest["digests"], self._way_out, shown=self._path)
        arrays = [artifacts.read_npy(path / f"{name}.npy", mmap=True) for name in _READ]
        self.lengths, self.prompt_lengths, gaps, self.ids, self.source_codes = arrays
        self.gaps = Gaps.of(gaps)
        self.source_names: list[str] = self.manifest["source_names"]
        self.common_prefix = np.array(self.manifest["common_prefix"], np.int32)

    def response_lengths(self) -> Int64[np.ndarray, " n"]:
        """Tokens of each row that have a loss."""
        behind = np.asarray(self.lengths, np.int64) - np.asarray(self.prompt_lengths, np.int64)
        return behind - self.gaps.counts(np.arange(len(self)))

    @functools.cached_property
    def _records(self) -> Any:
        # array_record reads local files.
        folder = artifacts.local_copy(self._path / "dataset" / _FOLDER)
        records = open_builder(folder).as_data_source(split=_SPLIT)
        if len(records) != len(self.lengths):
            raise ValueError(f"{len(records)} records for {len(self.lengths)} rows")
        return records

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, indices: Sequence[int]) -> list[Int32[np.ndarray, "_"]]:
        """Token ids of some rows."""
        with self._naming_records():
            records = self._records.__getitems__([int(n) for n in indices])
            rows = [record["tokens"] for record in records]
            # Of a file that was cut off, array_record gives rows without anything.
            for number, row in zip(indices, rows, strict=True):
                if row is None or len(row) != self.lengths[number]:
                    raise ValueError(f"row {number} has not its {self.lengths[number]} tokens")
            return rows

    def originals(self, indices: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The rows as they came, in the order asked for."""
        numbers = map(int, indices)
        while some := list(itertools.islice(numbers, _CHUNK)):
            with self._naming_records():
                rows = [json.loads(record["original"]) for record in self._records.__getitems__(some)]
            yield from rows

    @property
    def _way_out(self) -> str:
        return f"remove {self._path} and run the same command, which tokenises the pool again"

    @contextlib.contextmanager
    def _naming_records(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file makes TFDS and array_record raise
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            files = self._path / "dataset" / _FOLDER
            raise InputError(f"{files}: the pool's rows are damaged ({cause}): {self._way_out}.") from error


def fingerprint(data: str, tokenizer: Any, settings: TokenizeSettings) -> str:
    """Sixteen hex digits that change when the data, the tokeniser or the settings do."""
    parts = [data, json.dumps(dataclasses.asdict(settings))]
    if tokenizer is not None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        # Padding and truncation say how it was last called, not what it is.
        last_call = {"padding": None, "truncation": None}
        parts.append(
            json.dumps(json.loads(backend.to_str()) | last_call if backend else tokenizer.get_vocab())
        )
        parts.append(str(tokenizer.eos_token_id))
        if settings.prompt == CHAT:
            parts.append(template_identity(tokenizer))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def prepare(
    path: epath.PathLike,
    rows: Callable[[], Iterable[PoolRow]],
    tokenizer: Any,
    settings: TokenizeSettings,
    *,
    progress: Callable[[int], None] = lambda done: None,
    notes: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Tokenise a pool into `path`, unless a finished one is there.

    Args:
      path: the folder to make; it holds a manifest.json only when it is complete.
      rows: gives the rows, in order.
      tokenizer: a transformers tokeniser; None stores the rows without tokens.
      settings: template, boundary rule and length limit.
      progress: called with the number of rows done so far.
      notes: called when all rows are read; what the manifest should say beside.

    Raises:
      InputError: bad rows (see `data.pool`), or no row has a response token within the limit.
        Nothing is left behind then.
    """
    path = epath.Path(path)
    if (path / "manifest.json").exists():
        return
    if path.exists():
        path.rmtree()
    try:
        with artifacts.writing_folder(path) as folder:
            manifest = _write(folder, rows, tokenizer, settings, progress, notes)
        # Written last: a folder with a manifest is a complete one.
        integrity.write_json(path / "manifest.json", manifest)
    except Exception:
        path.rmtree(missing_ok=True)
        raise


def _write(
    path: epath.Path,
    rows: Callable[[], Iterable[PoolRow]],
    tokenizer: Any,
    settings: TokenizeSettings,
    progress: Callable[[int], None],
    notes: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    tally = _Tally()

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        remaining = iter(rows())
        while chunk := list(itertools.islice(remaining, _CHUNK)):
            for row, example in zip(chunk, _tokenize(tokenizer, chunk, settings), strict=True):
                yield tally.count, tally.add(row, example)
            progress(tally.count)

    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    # TFDS prints about a download that does not happen.
    with quiet_libraries(), contextlib.redirect_stdout(io.StringIO()):
        try:
            _builder(records, data_dir=str(path / "dataset")).download_and_prepare()
        except RuntimeError as error:  # what array_record raises on a full disk
            raise OSError(f"{path}: the tokenised pool was not written ({error})") from error
    manifest = tally.manifest(settings) | notes()
    if tokenizer is not None and manifest["num_with_loss"] == 0:
        raise InputError(
            f"No row of the pool has a response token within max_length={settings.max_length} "
            "tokens: raise tokenize.max_length."
        )
    for name, values in tally.arrays().items():
        artifacts.write_npy(path / f"{name}.npy", values)
    described = [f"dataset/{_FOLDER}/{name}" for name in _DESCRIBED]
    manifest["digests"] = integrity.digests(path, [*(f"{name}.npy" for name in _READ), *described])
    for what, meaning in _MEANING.items():
        if count := manifest[f"num_{what}"]:
            rows_that = f"{count} of {tally.count} rows {meaning.format(settings=settings)}"
            logging.warning("%s; first ids: %s", rows_that, ", ".join(map(str, manifest[f"ids_{what}"][:5])))
    return manifest


_MEANING = {
    "without_loss": "have no loss: the prompt alone fills max_length={settings.max_length} tokens",
    "cut": "were cut at max_length={settings.max_length} tokens",
    "boundary_merged": "have a token across the end of a prompt",
}


def _tokenize(tokenizer: Any, rows: Sequence[PoolRow], settings: TokenizeSettings) -> list[TokenizedExample]:
    if tokenizer is None:
        return [TokenizedExample(np.zeros(0, np.int32), 0, False, False) for _ in rows]
    texts = [render(settings.prompt, row, tokenizer, settings.turns) for row in rows]
    options = {"boundary": settings.boundary, "template": settings.prompt}
    return tokenize(tokenizer, texts, max_length=settings.max_length, **options)


class _Tally:
    """What the manifest and the side files need, gathered while records stream to disk."""

    def __init__(self) -> None:
        self.count = 0
        types = {"lengths": "i", "prompt_lengths": "i", "ids": "Q", "sources": "i"}
        self._columns = {name: array(kind) for name, kind in (types | dict.fromkeys(_MEANING, "b")).items()}
        self._sources: dict[str, int] = {}
        self._gaps = array("q")  # row, start and end of each
        self._shared = CommonPrefix()

    def add(self, row: PoolRow, example: TokenizedExample) -> dict[str, Any]:
        """Take note of a row; returns its record."""
        self.count += 1
        length, prompt = len(example.tokens), example.prompt_length
        source = self._sources.setdefault(row.source, len(self._sources))
        for gap in example.gaps:
            self._gaps.extend((self.count - 1, *gap))
        found = (length > 0 and not example.has_response, example.cut, example.boundary_merged)
        values = (length, prompt, row.id, source, *found)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        self._shared.add(example.tokens)
        return {"tokens": example.tokens, "original": json.dumps(row.original)}

    def arrays(self) -> dict[str, np.ndarray]:
        """By the names of their files; of rows with a problem all ids, where the manifest lists the first."""
        columns = {name: np.array(values) for name, values in self._columns.items()}
        columns["gaps"] = np.array(self._gaps, np.int64).reshape(-1, 3)
        return columns | {what: columns["ids"][columns[what] != 0] for what in _MEANING}

    def manifest(self, settings: TokenizeSettings) -> dict[str, Any]:
        arrays = self.arrays()
        lengths, prompts = arrays["lengths"], arrays["prompt_lengths"]
        between = Gaps.of(arrays["gaps"]).counts(np.arange(self.count))
        return {
            "num_examples": self.count,
            "num_tokens": int(lengths.sum(dtype=np.int64)),
            "num_response_tokens": int((lengths - prompts - between).sum(dtype=np.int64)),
            "num_with_loss": np.count_nonzero(num_loss_tokens(lengths, prompts) - between),
            "source_names": list(self._sources),
            "source_counts": np.bincount(arrays["sources"], minlength=len(self._sources)).tolist(),
            "settings": dataclasses.asdict(settings),
            "common_prefix": self._shared.tokens.tolist(),
            **{f"num_{what}": len(arrays[what]) for what in _MEANING},
            **{f"ids_{what}": arrays[what][:_LISTED].tolist() for what in _MEANING},
        }


def _builder(records: Callable[[], Iterator[tuple[int, dict[str, Any]]]], data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    class Info(tfds.core.DatasetInfo):
        def initialize_from_bucket(self) -> None:
            """Look for no description in TFDS's own bucket, and leave no empty temporary folder for it."""

    # TFDS keeps a global table of builder names; this one is no dataset to be looked up there.
    with tfds.core.registered.skip_registration():

        class S2lPool(tfds.core.GeneratorBasedBuilder):
            """Tokenised pool rows in pool order."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self) -> Any:
                features = {
                    "tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32),
                    "original": tfds.features.Text(),
                }
                # Shuffling, on unless said otherwise, would part record i from pool row i.
                described = tfds.features.FeaturesDict(features)
                return Info(builder=self, features=described, disable_shuffling=True)

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {_SPLIT: records()}

            def _generate_examples(self) -> Any:
                raise NotImplementedError("rows come from the generator given to prepare()")

    return S2lPool(data_dir=data_dir, file_format="array_record")
