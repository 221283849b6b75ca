"""A large array of the workdir that is made in chunks: an interrupted run goes on after the last of them."""

import numpy as np
from etils import epath
from numpy.typing import DTypeLike

from s2l_jax import artifacts


class ChunkedArray:
    """Chunks by the number of their first row, and in the end one file of them.

    Args:
      folder: where they are.
      name: of the file, such as "states.npy".
    """

    def __init__(self, folder: epath.Path, name: str):
        self._folder, self._name = folder, name

    def has(self, start: int) -> bool:
        """Whether a part is there."""
        return self._part(start).exists()

    def write(self, start: int, rows: np.ndarray) -> None:
        """Store a part."""
        artifacts.write_npy(self._part(start), rows)

    def join(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """Make one file of the parts, a part in memory at a time, and remove them."""
        parts = sorted(self._folder.glob("part-*.npy"))
        artifacts.remove_unfinished(self._folder)
        with artifacts.writing(self._folder / self._name) as file:
            joined = np.lib.format.open_memmap(str(file), "w+", dtype, shape)
            at = 0
            for part in parts:
                rows = artifacts.read_npy(part)
                joined[at : at + len(rows)] = rows
                at += len(rows)
            joined.flush()
            del joined
        for part in parts:
            part.unlink()

    def read(self) -> np.ndarray:
        """The whole, memory-mapped."""
        return artifacts.read_npy(artifacts.local_copy(self._folder, [self._name]) / self._name, mmap=True)

    def _part(self, start: int) -> epath.Path:
        return self._folder / f"part-{start:010d}.npy"
