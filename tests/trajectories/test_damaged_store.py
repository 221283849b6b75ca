"""A trajectory store that is damaged is refused, by the name of what is."""

import json

import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.trajectories.load import load_trajectories
from tests.support.stores import COLUMNS, STEPS, new_store


def flip(file, place=-1):
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["losses/c/0/1", "steps/c/0", "ids/c/0"])
@pytest.mark.parametrize("place", [0, 7, -1])
def test_a_changed_bit_is_named(tmp_path, name, place):
    path = tmp_path / "t.zarr"
    new_store(path)
    flip(path / name, place)
    with pytest.raises(InputError, match="is damaged") as error:
        load_trajectories(path)
    assert str(path / name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["losses/c/0/1", "ids/c/0"])
def test_a_chunk_that_is_gone_is_named(tmp_path, name):
    path = tmp_path / "t.zarr"
    new_store(path)
    (path / name).unlink()
    with pytest.raises(InputError, match="missing") as error:
        load_trajectories(path)
    assert str(path / name) in str(error.value)


@pytest.mark.parametrize("name", ["zarr.json", "losses/zarr.json", "steps/zarr.json", "ids/zarr.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_metadata_that_are_none_are_named(tmp_path, name, content):
    path = tmp_path / "t.zarr"
    new_store(path)
    (path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"t\.zarr") as error:
        load_trajectories(path)
    assert "\n" not in str(error.value)


def test_chunks_of_fill_by_other_writers_may_be_left_out(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "t.zarr"
    group = zarr.open_group(str(path), mode="w")
    group.create_array("losses", data=COLUMNS)
    group.create_array("steps", data=np.array([0]))
    group["steps"].resize((4,))
    group["steps"][:] = STEPS
    group.create_array("ids", data=np.array([0, 1, 2, 3, 4], np.uint64), chunks=(1,))
    assert not (path / "ids" / "c" / "0").exists()
    assert load_trajectories(path).ids.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("change", [{"shape": [2**40, 2]}, {"chunk": [2**40, 1]}], ids=["shape", "chunk"])
def test_more_than_memory_is_refused(tmp_path, change):
    """tensorstore ends the process when it cannot allocate."""
    path = tmp_path / "t.zarr"
    new_store(path)
    metadata = json.loads((path / "losses" / "zarr.json").read_text())
    metadata["shape"] = change.get("shape", metadata["shape"])
    if "chunk" in change:
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = change["chunk"]
    else:
        ids = json.loads((path / "ids" / "zarr.json").read_text())
        (path / "ids" / "zarr.json").write_text(json.dumps(ids | {"shape": [2**40]}))
    (path / "losses" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=r"`losses` has .*GiB, more than this machine's memory"):
        load_trajectories(path)
