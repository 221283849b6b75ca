"""A large array of the workdir that is made in chunks: an interrupted run goes on after the last of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Shaped

from s2l_jax import artifacts, integrity
from s2l_jax.console import Progress, say
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.parallel import processes
from s2l_jax.records import Record, stored_digests, way_out
from s2l_jax.training.run import Run

_ROWS = "rows"


class ChunkedArray:
    """A part of a workdir with numbers for each row of the pool: chunks, and in the end one file of them.

    `name` is the file's, such as "states.npy"; `settings` decide the numbers beside the pool.

    Raises:
      InputError: the part was made with other settings, or of another pool.
    """

    def __init__(self, run: Run, part: str, name: str, pool: PreparedPool, settings: Mapping[str, Any]):
        self._record = Record(run.workdir / part, part, {**settings, "pool.fingerprint": pool.fingerprint})
        self._folder, self._name, self._size = self._record.folder, name, len(pool)
        self.done = self._record.done

    def has(self, start: int) -> bool:
        """Whether the chunk that begins at a row is there; a damaged one is not.

        The process that writes says so to the others, which call this together: it may be at the next
        thing, joining the chunks and removing them, while they still look.
        """
        return processes.of_writer(processes.is_writer() and self._is_whole(start))

    def _is_whole(self, start: int) -> bool:
        if not self._chunk(start).exists():
            return False
        try:
            _read(self._chunk(start))
        except InputError as error:
            say(f"{error} It is made again.")
            return False
        return True

    def make(
        self, chunks: Iterable[tuple[int, Shaped[np.ndarray, "c ..."]]], results: dict[str, Any], *, fix: str
    ) -> None:
        """Store each chunk as it comes, make one file of them, and mark the part finished.

        Args:
          chunks: those that are not there yet, each with the number of its first row.
          fix: what helps against numbers that are not finite.

        Raises:
          DivergedError: numbers that are not finite.
        """
        progress = Progress(self._record.what.replace("_", " ").replace("/", " "), self._size, "rows")
        with self._record.counting():
            for start, rows in chunks:
                finite = np.isfinite(rows).reshape(len(rows), -1).all(1)
                if not finite.all():
                    row = start + int(finite.argmin())
                    raise DivergedError(f"{self._record.what}: pool row {row} is not finite; {fix}")
                if processes.is_writer():
                    integrity.write_npz(self._chunk(start), {_ROWS: rows})
                progress.update(start + len(rows))
        progress.close()
        if processes.is_writer():
            self._join()
        self._record.finish(results, files=[self._name])

    def read(self) -> Shaped[np.ndarray, "n ..."]:
        """The whole, memory-mapped; raises InputError if it is gone or not as it was written."""
        integrity.check(self._folder, stored_digests(self._folder), way_out(self._folder))
        return artifacts.read_npy(artifacts.local_copy(self._folder, [self._name]) / self._name, mmap=True)

    def _join(self) -> None:
        """One file of the chunks, one of them in memory at a time."""
        parts = artifacts.files_in(self._folder, "part-*.npz")
        first = _read(parts[0])
        artifacts.remove_unfinished(self._folder)
        with artifacts.writing(self._folder / self._name) as file:
            joined = np.lib.format.open_memmap(str(file), "w+", first.dtype, (self._size, *first.shape[1:]))
            at = 0
            for part in parts:
                rows = _read(part)
                joined[at : at + len(rows)] = rows
                at += len(rows)
            joined.flush()
            del joined
        for part in parts:
            part.unlink()

    def _chunk(self, start: int) -> epath.Path:
        return self._folder / f"part-{start:010d}.npz"


def _read(chunk: epath.Path) -> Shaped[np.ndarray, "c ..."]:
    return integrity.read_npz(chunk)[_ROWS]
