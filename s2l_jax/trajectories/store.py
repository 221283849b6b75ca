"""The trajectory store: a Zarr v3 group that grows by one column a checkpoint."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64, UInt64

from s2l_jax import artifacts
from s2l_jax.errors import InputError

_CHUNK_ROWS = 2**20
_CHECKED = {"name": "crc32c"}
_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, _CHECKED]
_DAMAGE = ("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE")
ROW_NUMBERS = {"ids": "row numbers"}  # attribute of a store whose rows have no ids of their own


@dataclasses.dataclass(frozen=True)
class Writers:
    """The processes that write a store together, and which of them this one is."""

    index: int = 0
    count: int = 1
    barrier: Callable[[str], None] = lambda name: None

    def rows(self, size: int, chunk: int) -> slice:
        """The rows of a column that this process writes: whole chunks, about as many as the others."""
        chunks = -(-size // chunk)
        first, end = (place * chunks // self.count for place in (self.index, self.index + 1))
        return slice(min(size, first * chunk), min(size, end * chunk))


class TrajectoryStore:
    """Losses float32 [N, T], `steps` int64 [T] and `ids` uint64 [N], readable by zarr and xarray.

    A column counts once `steps` lists it, which is -1 before: losses are written first, so a reader
    never takes a part for the whole. Root metadata is written here, since tensorstore writes none. Every
    chunk has a CRC-32C; a damaged or missing one is an error of whatever reads it.

    Args:
      path: the store's folder.
      writers: the processes that call `append` together; this one alone if left out.

    Raises:
      InputError: no trajectory store there, or one that is damaged or larger than this machine's memory.
    """

    def __init__(self, path: epath.PathLike, writers: Writers | None = None):
        self._path, self._writers = epath.Path(path), writers or Writers()
        if not (self._path / "zarr.json").exists():
            raise InputError(f"{self._path}: not a trajectory store: no zarr.json there.")
        self._losses, self._steps, self._ids = (self._open(name) for name in ("losses", "steps", "ids"))
        shapes = [array.shape for array in (self._losses, self._steps, self._ids)]
        if [len(shape) for shape in shapes] != [2, 1, 1] or shapes[0][0] != shapes[2][0]:
            raise InputError(
                f"{self._path}: not a trajectory store: losses, steps and ids have shapes "
                f"{shapes}; [N, T], [T] and [N] are needed."
            )

    @classmethod
    def create(
        cls, path: epath.PathLike, ids: UInt64[np.ndarray, "n"], attributes: Mapping[str, Any]
    ) -> "TrajectoryStore":
        """A store without columns; one that is there already is opened.

        Raises:
          InputError: the store there is of other examples, or has other attributes.
          OSError: it could not be written (a full disk, say).
        """
        path = epath.Path(path)
        if not (path / "zarr.json").exists():
            n = len(ids)
            rows = min(n, _CHUNK_ROWS)
            with _failing_as_oserror(path, "the store could not be made"):
                _create(path / "losses", "float32", ("example", "checkpoint"), (n, 0), (rows, 1), "NaN")
                _create(path / "steps", "int64", ("checkpoint",), (0,), (1024,), -1)
                array = _create(path / "ids", "uint64", ("example",), (n,), (rows,), 0)
                array[:].write(np.asarray(ids, np.uint64)).result()
            group = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
            artifacts.write_json(path / "zarr.json", group)
        store = cls(path)
        if not np.array_equal(store.ids(), ids):
            raise InputError(
                f"{path}: holds {store.num_examples} examples with other ids than this pool's "
                f"{len(ids)}; use another workdir."
            )
        before = store.attributes
        if before != attributes:
            raise InputError(
                f"{path}: holds trajectories of another proxy ({before} before, {dict(attributes)} "
                "now); use another workdir."
            )
        return store

    @property
    def num_examples(self) -> int:
        """N."""
        return self._ids.shape[0]

    @property
    def attributes(self) -> dict[str, Any]:
        """What the store was made with, of the group's metadata."""
        group = artifacts.read_json(self._path / "zarr.json")
        attributes = group.get("attributes", {}) if isinstance(group, dict) else None
        if not isinstance(attributes, dict):
            file = self._path / "zarr.json"
            raise InputError(f"{file}: not the metadata of a Zarr group: {self._way_out}.")
        return attributes

    @property
    def has_row_ids(self) -> bool:
        """Whether `ids` name examples; if not, they are row numbers."""
        return self.attributes.get("ids") != ROW_NUMBERS["ids"]

    def ids(self) -> UInt64[np.ndarray, "n"]:
        """Ids of the examples, in row order."""
        return self._read(self._ids)

    def steps(self) -> Int64[np.ndarray, "t"]:
        """Training steps of the columns that count."""
        self._steps = self._steps.resolve().result()
        steps = self._read(self._steps)
        return steps[steps >= 0]

    def append(self, step: int, column: Float32[np.ndarray, "n"]) -> None:
        """Add the losses measured after `step` training steps; every writer calls it, and writes its part.

        Raises:
          ValueError: a step not after the last one, or a column of another length.
          OSError: the column could not be written (a full disk, say).
        """
        steps = self.steps()
        if len(steps) and step <= steps[-1]:
            raise ValueError(f"step {step} does not come after {steps[-1]}")
        if np.shape(column) != (self.num_examples,):
            raise ValueError(f"a column of shape {np.shape(column)} for {self.num_examples} examples")
        at, writers = len(steps), self._writers
        with _failing_as_oserror(self._path, f"the column of step {step} was not written"):
            if writers.index == 0:
                # Both, as xarray opens no store with arrays of unlike lengths; the new step is -1.
                self._losses = _resize(self._losses, (self.num_examples, at + 1))
                self._steps = _resize(self._steps, (at + 1,))
            writers.barrier(f"room for column {step}")
            self._losses = self._losses.resolve().result()
            mine = writers.rows(self.num_examples, self._losses.chunk_layout.write_chunk.shape[0])
            self._losses[mine, at].write(np.asarray(column[mine], np.float32)).result()
            writers.barrier(f"column {step} written")
            if writers.index == 0:
                self._steps[at].write(np.int64(step)).result()
            writers.barrier(f"column {step} listed")

    def drop_after(self, step: int) -> None:
        """Take away the columns measured after `step`, for training that goes on from there."""
        steps = self.steps()
        kept = int((steps <= step).sum())
        if kept == len(steps):
            return
        with _failing_as_oserror(self._path, f"the columns after step {step} were not dropped"):
            # Within a chunk a step would come back when the array grows again.
            self._steps[kept : len(steps)].write(np.int64(-1)).result()
            self._steps = _resize(self._steps, (kept,))
            self._losses = _resize(self._losses, (self.num_examples, kept))

    def column(self, number: int) -> Float32[np.ndarray, "n"]:
        """One column by its place."""
        return self._read(self._losses.resolve().result()[:, number])

    def read(self) -> Float32[np.ndarray, "n t"]:
        """All columns that count, in training order."""
        count = len(self.steps())
        self._losses = self._losses.resolve().result()
        return np.ascontiguousarray(self._read(self._losses[:, :count]))

    @property
    def _way_out(self) -> str:
        return (
            "take the store from a copy, or measure again: remove it, and in a workdir the folder proxy (or "
            "trajectories) beside it, and run the same command"
        )

    def _read(self, array: Any) -> np.ndarray:
        try:
            return array.read().result()
        except ValueError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: ValueError) -> Exception:
        cause = _cause(error)
        if cause.startswith(_DAMAGE):
            return InputError(f"{self._path} is damaged ({cause}): {self._way_out}.")
        return OSError(f"{self._path} could not be read ({cause})")

    def _open(self, name: str) -> Any:
        import tensorstore as ts

        # Metadata is checked again, so that columns that others append are seen.
        spec = _spec(self._path / name) | {"recheck_cached_metadata": True}
        try:
            array = ts.open(spec).result()
            # Other writers leave chunks out that are all fill; so is the room for the first step.
            if name != "steps" and _CHECKED in array.spec().to_json()["metadata"].get("codecs", ()):
                array = ts.open(spec | {"fill_missing_data_reads": False}).result()
        except ValueError as error:
            what = f"not a trajectory store: its array `{name}` cannot be opened ({_cause(error)})"
            raise InputError(f"{self._path}: {what}: {self._way_out}.") from error
        # Asked for more than there is, tensorstore ends the process.
        chunk = array.chunk_layout.read_chunk.shape or ()
        for what, shape in (("", array.shape), ("chunks of ", chunk)):
            needed = math.prod(int(length or 1) for length in shape) * array.dtype.numpy_dtype.itemsize
            if needed > _memory():
                raise InputError(
                    f"{self._path}: its array `{name}` has {what}{list(shape)} numbers, "
                    f"{needed / 2**30:,.0f} GiB, more than this machine's memory."
                )
        return array


def _cause(error: ValueError) -> str:
    """What tensorstore says first: after it come its settings."""
    return (str(error).splitlines() or [""])[0].split(" [")[0]


def _memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def _failing_as_oserror(path: epath.Path, what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # what tensorstore raises on a full disk
        raise OSError(f"{path}: {what} ({error})") from error


def _create(path: epath.Path, dtype: str, dimensions: tuple, shape: tuple, chunk: tuple, fill: Any) -> Any:
    import tensorstore as ts

    metadata = {
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "codecs": _CODECS,
        "fill_value": fill,
        "dimension_names": dimensions,
    }
    return ts.open(_spec(path) | {"metadata": metadata}, create=True, delete_existing=True).result()


def _resize(array: Any, shape: tuple[int, ...]) -> Any:
    return array.resolve().result().resize(exclusive_max=shape).result()


def _spec(path: epath.Path) -> dict[str, Any]:
    return {
        "driver": "zarr3",
        "kvstore": artifacts.kvstore(path),
        "store_data_equal_to_fill_value": True,
    }
