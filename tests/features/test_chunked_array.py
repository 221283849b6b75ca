"""Large arrays of a workdir: made in chunks, and compared with what was made when they are read."""

import types

import numpy as np
import pytest
from etils import epath

from s2l_jax.errors import InputError
from s2l_jax.features.compute.chunked_array import ChunkedArray

CHUNKS = [(0, np.arange(8, dtype=np.float32).reshape(4, 2)), (4, np.ones((3, 2), np.float32))]
WHOLE = np.concatenate([rows for _, rows in CHUNKS])


class Pool:
    """What is read of one."""

    fingerprint = "f"

    def __len__(self):
        return len(WHOLE)


@pytest.fixture
def array(tmp_path):
    run = types.SimpleNamespace(workdir=epath.Path(tmp_path))
    return lambda: ChunkedArray(run, "states/mean", "states.npy", Pool(), {"dtype": "float32"})


def make(array):
    array.make((chunk for chunk in CHUNKS if not array.has(chunk[0])), {}, fix="")


def test_chunks_become_one_array(array):
    make(array())
    assert array().done
    assert np.array_equal(array().read(), WHOLE)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_array_is_named(array, tmp_path, damage):
    make(array())
    file = tmp_path / "states" / "mean" / "states.npy"
    data = file.read_bytes()
    file.write_bytes(data[:-4] if damage == "cut" else data[:-1] + b"x")
    if damage == "gone":
        file.unlink()
    with pytest.raises(InputError, match=rf"^{file} is .*remove {file.parent} and run the same command"):
        array().read()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_chunk_is_made_again(array, tmp_path, damage):
    def interrupted():
        yield CHUNKS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        array().make(interrupted(), {}, fix="")
    assert array().has(0)
    assert not array().has(4)
    file = tmp_path / "states" / "mean" / "part-0000000000.npz"
    data = file.read_bytes()
    at = data.index(CHUNKS[0][1].tobytes())
    changed = {"flip": data[:at] + b"x" + data[at + 1 :], "cut": data[: len(data) // 2], "empty": b""}
    file.write_bytes(changed[damage])
    assert not array().has(0)
    make(array())
    assert np.array_equal(array().read(), WHOLE)
