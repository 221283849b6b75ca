"""Digests beside files, and JSON with its own checksum: whatever is damaged is found and named."""

import numpy as np
import pytest

from s2l_jax import artifacts, integrity
from s2l_jax.errors import InputError

VALUE = {"settings": {"seed": 0, "path": "é"}, "loss": np.float32(0.25), "sizes": np.arange(3)}
PLAIN = {"settings": {"seed": 0, "path": "é"}, "loss": 0.25, "sizes": [0, 1, 2]}


def test_json_comes_back_without_its_checksum(tmp_path):
    integrity.write_json(tmp_path / "a.json", VALUE)
    assert integrity.read_json(tmp_path / "a.json", "") == PLAIN


def test_no_changed_bit_of_json_passes_as_another_value(tmp_path):
    file = tmp_path / "a.json"
    integrity.write_json(file, VALUE)
    data = file.read_bytes()
    said = []
    for place in range(len(data)):
        for bit in (1, 4, 16):
            damaged = bytearray(data)
            damaged[place] ^= bit
            file.write_bytes(damaged)
            try:
                assert integrity.read_json(file, "way out") == PLAIN  # in the white space, say
            except InputError as error:
                said.append(str(error))
    assert set(said) == {f"{file} is not as it was written: way out."}
    assert len(said) > 2 * len(data)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff", None])
def test_json_that_is_none_is_named(tmp_path, content):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is (gone|not as it was written): way out\."):
        integrity.read_json(file, "way out")


def test_digests_of_files_and_folders(tmp_path):
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt", "other.txt"):
        artifacts.write_text(tmp_path / name, name)
    kept = integrity.digests(tmp_path, ["a.txt", "deep"])
    assert list(kept) == ["a.txt", "deep/b.txt", "deep/er/c.txt"]
    assert integrity.damage(tmp_path, kept) == ""
    (tmp_path / "other.txt").unlink()
    assert integrity.damage(tmp_path, kept) == ""
    (tmp_path / "deep" / "b.txt").write_text("deep/b.txu")
    assert integrity.damage(tmp_path, kept) == f"{tmp_path}/deep/b.txt is not as it was written"
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match=r"^/shown/a\.txt is gone: way out\.$"):
        integrity.check(tmp_path, kept, "way out", shown="/shown")


ARRAYS = {"epoch": np.array(3), "losses": np.arange(40, dtype=np.float32)}


def test_npz_comes_back(tmp_path):
    integrity.write_npz(tmp_path / "a.npz", ARRAYS)
    read = integrity.read_npz(tmp_path / "a.npz")
    assert read.keys() == ARRAYS.keys()
    assert all(np.array_equal(read[name], ARRAYS[name]) for name in ARRAYS)


def test_no_changed_bit_of_npz_passes_as_another_array(tmp_path):
    file = tmp_path / "a.npz"
    integrity.write_npz(file, ARRAYS)
    data, said = file.read_bytes(), []
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            read = integrity.read_npz(file)
        except InputError as error:
            said.append(str(error))
        else:
            assert read.keys() == ARRAYS.keys()
            assert all(np.array_equal(read[name], ARRAYS[name]) for name in ARRAYS)
    assert all(line.startswith(f"{file}: not a readable .npz file") for line in said)
    assert len(said) > len(data) // 2


@pytest.mark.parametrize("size", [0, 10, 100])
def test_cut_files_are_named(tmp_path, size):
    artifacts.write_npy(tmp_path / "a.npy", np.arange(100))
    integrity.write_npz(tmp_path / "a.npz", ARRAYS)
    for name, read in (("a.npy", artifacts.read_npy), ("a.npz", integrity.read_npz)):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size])
        with pytest.raises(InputError, match=f"{name}: not a readable .np. file"):
            read(tmp_path / name)


def test_an_array_larger_than_memory_is_named(tmp_path):
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2)}
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(InputError, match=r"a\.npy: not a readable"):
        artifacts.read_npy(tmp_path / "a.npy")
