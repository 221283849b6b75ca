"""The prepared pool: record i is row i, made once, never half made."""

import dataclasses
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from s2l_jax.data import prepared
from s2l_jax.data.datasets.synthetic_tokenizer import write_tokenizer
from s2l_jax.data.identity import data_identity
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint, prepare
from s2l_jax.data.prompts import TEMPLATES, render
from s2l_jax.data.tokens import tokenize
from s2l_jax.errors import InputError
from tests.support.paths import REPOSITORY

SETTINGS = TokenizeSettings(prompt="plain", boundary="separate", max_length=40)
ODD = {
    "half": "\ud83d",  # not valid Unicode, but valid JSON
    "text": "naïve → 漢字 \u2028 \x00 🙂",
    "nested": [{"a": None, "b": [1.5, True, {"": "x"}]}, 2**63],
}


def make_row(number, **original):
    return PoolRow(
        id=2**64 - 1 - number,
        instruction=f"copy {'ab' * (number % 7)} {number}",
        input="",
        output=f"é{number}",
        source=f"source {number % 3}",
        original={"number": number, **original},
        place=f"pool.jsonl:{number + 1}",
    )


def make_rows(count):
    return [make_row(n, **(ODD if n == 2 else {})) for n in range(count)]


class Untouchable:
    """A tokeniser, or rows, that must not be used."""

    def __call__(self, *args, **kwargs):
        raise AssertionError("used again")

    __iter__ = __getattr__ = __call__


@pytest.fixture(scope="module")
def load_tokenizer(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return lambda: transformers.AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="module")
def tokenizer(load_tokenizer):
    return load_tokenizer()


@pytest.fixture(scope="module")
def rows():
    return make_rows(2500)  # more than two chunks


@pytest.fixture(scope="module")
def pool_path(rows, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "0123456789abcdef"
    done = []
    prepare(path, lambda: rows, tokenizer, SETTINGS, progress=done.append)
    assert done[-1] == len(rows)
    assert done == sorted(done)
    return path


@pytest.fixture(scope="module")
def pool(pool_path):
    return PreparedPool(pool_path)


class TestReading:
    def test_record_i_is_row_i(self, pool, rows, tokenizer):
        numbers = [2499, 0, 1024, 1023, 7, 7]
        texts = [render("plain", rows[n]) for n in numbers]
        expected = tokenize(tokenizer, texts, max_length=40)
        for number, tokens, example in zip(numbers, pool.read(numbers), expected, strict=True):
            assert np.array_equal(tokens, example.tokens)
            assert tokens.dtype == np.int32
            assert pool.lengths[number] == len(tokens)
            assert pool.prompt_lengths[number] == example.prompt_length

    def test_every_record(self, pool, rows):
        assert len(pool) == len(rows)
        assert [o["number"] for o in pool.originals(range(2500))] == list(range(2500))
        assert [len(t) for t in pool.read(range(2500))] == pool.lengths.tolist()

    def test_rows_come_back_as_they_came(self, pool, rows):
        (original,) = pool.originals([2])
        assert original == rows[2].original == {"number": 2, **ODD}
        assert list(original) == list(rows[2].original)

    def test_side_files(self, pool, rows):
        for column in (pool.lengths, pool.prompt_lengths, pool.ids, pool.source_codes):
            assert isinstance(column, np.memmap)
            assert len(column) == len(rows)
        assert pool.ids.dtype == np.uint64
        assert pool.ids.tolist() == [row.id for row in rows]
        assert pool.source_names == ["source 0", "source 1", "source 2"]
        assert [pool.source_names[c] for c in pool.source_codes] == [row.source for row in rows]

    def test_manifest(self, pool):
        manifest = pool.manifest
        assert manifest["num_examples"] == manifest["num_with_loss"] == 2500
        assert manifest["num_tokens"] == pool.lengths.sum()
        assert manifest["num_response_tokens"] == (pool.lengths - pool.prompt_lengths).sum()
        assert manifest["source_counts"] == [834, 833, 833]
        assert pool.fingerprint == "0123456789abcdef"

    def test_what_all_rows_begin_with(self, tmp_path, tokenizer):
        words = ["a", "bb", "c"]
        rows = [PoolRow(n, f"write {w}", "", w, "all", {}, f"row {n}") for n, w in enumerate(words)]
        settings = TokenizeSettings("alpaca", "separate", 200)
        prepare(tmp_path / "p", lambda: iter(rows), tokenizer, settings)
        pool = PreparedPool(tmp_path / "p")
        shared = tokenizer(render("alpaca", rows[0])[0].partition("a\n")[0])["input_ids"]
        assert len(pool.common_prefix) > 8
        assert pool.common_prefix.tolist() == shared[: len(pool.common_prefix)]
        beginnings = [tokens[: len(pool.common_prefix)] for tokens in pool.read(range(3))]
        assert all(np.array_equal(beginning, pool.common_prefix) for beginning in beginnings)

    def test_from_another_place(self, pool_path, tmp_path, rows):
        """Nothing in a prepared pool names the folder it was made in."""
        import shutil

        moved = tmp_path / "moved"
        shutil.copytree(pool_path, moved)
        assert next(PreparedPool(moved).originals([5])) == rows[5].original


class TestPreparingOnce:
    def test_a_second_time_uses_what_is_there(self, pool_path):
        before = sorted(p.stat().st_mtime_ns for p in pool_path.rglob("*"))
        prepare(pool_path, Untouchable(), Untouchable(), SETTINGS)
        assert sorted(p.stat().st_mtime_ns for p in pool_path.rglob("*")) == before

    def test_a_half_written_folder_is_made_anew(self, tmp_path, tokenizer):
        path = tmp_path / "pool"
        prepare(path, lambda: make_rows(9), tokenizer, SETTINGS)
        (path / "manifest.json").unlink()
        (path / "stale.npy").write_bytes(b"x")
        prepare(path, lambda: make_rows(4), tokenizer, SETTINGS)
        assert len(PreparedPool(path)) == 4
        assert not (path / "stale.npy").exists()

    def test_exactly_one_chunk(self, tmp_path, tokenizer, monkeypatch):
        monkeypatch.setattr(prepared, "_CHUNK", 4)
        for count in (1, 4, 8):
            path = tmp_path / str(count)
            prepare(path, lambda count=count: make_rows(count), tokenizer, SETTINGS)
            assert [o["number"] for o in PreparedPool(path).originals(range(count))] == list(range(count))

    def test_nothing_is_left_in_the_systems_temporary_folder(self, tmp_path, tokenizer, monkeypatch):
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        prepare(tmp_path / "pool", lambda: make_rows(4), tokenizer, SETTINGS)
        PreparedPool(tmp_path / "pool")
        assert not list((tmp_path / "tmp").iterdir())

    @pytest.mark.parametrize(
        "error",
        [InputError("pool.jsonl:4: not JSON"), OSError(28, "No space left on device")],
        ids=["bad row", "disk full"],
    )
    def test_a_failure_leaves_nothing_behind(self, tmp_path, tokenizer, error):
        def failing():
            yield from make_rows(3)
            raise error

        path = tmp_path / "pool"
        with pytest.raises(type(error)) as caught:
            prepare(path, failing, tokenizer, SETTINGS)
        assert str(caught.value) == str(error)
        assert not list(tmp_path.iterdir())
        prepare(path, lambda: make_rows(4), tokenizer, SETTINGS)
        assert len(PreparedPool(path)) == 4

    def test_a_failure_at_the_very_end_leaves_no_manifest(self, tmp_path, tokenizer, monkeypatch):
        def full(path, array):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(prepared.artifacts, "write_npy", full)
        with pytest.raises(OSError, match="No space left"):
            prepare(tmp_path / "pool", lambda: make_rows(4), tokenizer, SETTINGS)
        assert not (tmp_path / "pool").exists()

    def test_no_row_with_room_for_a_response(self, tmp_path, tokenizer):
        settings = TokenizeSettings("plain", "separate", 2)
        with pytest.raises(InputError, match=r"max_length=2 tokens: raise tokenize\.max_length"):
            prepare(tmp_path / "pool", lambda: make_rows(4), tokenizer, settings)
        assert not (tmp_path / "pool").exists()

    def test_an_unknown_template(self, tmp_path, tokenizer):
        settings = TokenizeSettings("no such", "separate", 20)
        with pytest.raises(InputError, match="'no such' is not known; choose one of alpaca"):
            prepare(tmp_path / "pool", lambda: make_rows(4), tokenizer, settings)


class TestProblems:
    def test_counted_and_listed(self, tmp_path, tokenizer):
        rows = [
            *make_rows(3),
            dataclasses.replace(make_row(3), instruction="x" * 50),
            dataclasses.replace(make_row(4), output="y" * 60),
        ]
        path = tmp_path / "pool"
        prepare(path, lambda: rows, tokenizer, SETTINGS)
        pool = PreparedPool(path)
        assert pool.manifest["num_without_loss"] == 1
        assert pool.manifest["ids_without_loss"] == [rows[3].id]
        assert pool.manifest["num_cut"] == 2
        assert pool.manifest["ids_cut"] == [rows[3].id, rows[4].id]
        assert pool.manifest["num_with_loss"] == 4
        assert pool.lengths[3] == pool.prompt_lengths[3] == 40
        assert pool.lengths[4] == 40 > pool.prompt_lengths[4]

    def test_ids_listed_are_few_and_the_count_is_whole(self, tmp_path, tokenizer):
        rows = make_rows(200)
        settings = TokenizeSettings("plain", "separate", 8)
        path = tmp_path / "pool"
        prepare(path, lambda: rows, tokenizer, settings)
        manifest = PreparedPool(path).manifest
        texts = [render("plain", row) for row in rows]
        cut = [row.id for row, e in zip(rows, tokenize(tokenizer, texts, max_length=8), strict=True) if e.cut]
        assert manifest["num_cut"] == len(cut) > 20
        assert manifest["ids_cut"] == cut[:20]

    def test_merged_boundaries(self, tmp_path, tokenizer, monkeypatch):
        monkeypatch.setitem(TEMPLATES, "joined", lambda row: (row.instruction, row.output))
        rows = make_rows(5)
        # A word that begins in the prompt and ends in the response is one token of the two joined.
        rows[1] = dataclasses.replace(rows[1], instruction="the fir", output="st")
        path = tmp_path / "pool"
        prepare(path, lambda: rows, tokenizer, TokenizeSettings("joined", "official", 40))
        manifest = PreparedPool(path).manifest
        assert manifest["num_boundary_merged"] == 1
        assert manifest["ids_boundary_merged"] == [rows[1].id]


def test_without_a_tokeniser(tmp_path, rows):
    path = tmp_path / "pool"
    prepare(path, lambda: rows[:5], None, SETTINGS)
    pool = PreparedPool(path)
    assert pool.lengths.tolist() == [0] * 5
    assert [len(tokens) for tokens in pool.read(range(5))] == [0] * 5
    assert list(pool.originals([2, 0])) == [rows[2].original, rows[0].original]
    assert pool.ids.tolist() == [row.id for row in rows[:5]]
    assert pool.manifest["num_without_loss"] == 0
    assert pool.manifest["num_with_loss"] == 0


class TestFingerprint:
    def test_changes_with_data_tokeniser_and_settings(self, load_tokenizer):
        grown = load_tokenizer()
        grown.add_tokens(["<new>"])
        other_end = load_tokenizer()
        other_end.eos_token = "<|padding|>"
        marks = [
            fingerprint("data", load_tokenizer(), SETTINGS),
            fingerprint("other", load_tokenizer(), SETTINGS),
            fingerprint("data", None, SETTINGS),
            fingerprint("data", grown, SETTINGS),
            fingerprint("data", other_end, SETTINGS),
            fingerprint("data", load_tokenizer(), TokenizeSettings("alpaca", "separate", 40)),
            fingerprint("data", load_tokenizer(), TokenizeSettings("plain", "official", 40)),
            fingerprint("data", load_tokenizer(), TokenizeSettings("plain", "separate", 41)),
        ]
        assert len(set(marks)) == len(marks)
        assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)

    def test_not_with_how_the_tokeniser_was_last_called(self, load_tokenizer):
        tokenizer = load_tokenizer()
        before = fingerprint("data", tokenizer, SETTINGS)
        tokenizer(["a", "b b"], padding=True, truncation=True, max_length=3)
        assert fingerprint("data", tokenizer, SETTINGS) == before


class TestIdentity:
    def test_follows_the_content_and_not_the_folder(self, tmp_path):
        for folder, text in (("a", "1"), ("b", "1"), ("c", "2")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "pool.jsonl").write_text(text)
        a, b, c = (data_identity(str(tmp_path / f / "pool.jsonl")) for f in "abc")
        assert a == b != c

    def test_of_lists_globs_and_folders(self, tmp_path):
        for name in ("a.jsonl", "b.jsonl"):
            (tmp_path / name).write_text(name)
        both = f"{tmp_path}/a.jsonl, {tmp_path}/b.jsonl"
        assert data_identity(both) == data_identity(f"{tmp_path}/*.jsonl")
        (tmp_path / "b.jsonl").write_text("changed")
        assert data_identity(both) != data_identity(f"{tmp_path}/a.jsonl,{tmp_path}/a.jsonl")

    def test_of_a_folder(self, tmp_path):
        """Such as a trajectory store, whose chunks lie some folders down."""
        chunk = tmp_path / "store.zarr" / "losses" / "c" / "0"
        chunk.parent.mkdir(parents=True)
        (tmp_path / "store.zarr" / "zarr.json").write_text("{}")
        chunk.write_bytes(b"1")
        before = data_identity(str(tmp_path / "store.zarr"))
        assert data_identity(str(tmp_path / "store.zarr")) == before
        chunk.write_bytes(b"2")
        assert data_identity(str(tmp_path / "store.zarr")) != before

    @pytest.mark.parametrize("prefix", ["tfds:", "hub:"])
    def test_of_a_dataset_that_lies_here(self, prefix, tmp_path):
        record = tmp_path / "1.0.0" / "train.tfrecord"
        record.parent.mkdir()
        record.write_bytes(b"1")
        before = data_identity(f"{prefix}{record.parent}")
        assert before == data_identity(str(record.parent))
        record.write_bytes(b"2")
        assert data_identity(f"{prefix}{record.parent}") != before

    def test_of_a_glob_that_matches_a_folder_too(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("a")
        (tmp_path / "b.jsonl").mkdir()
        assert data_identity(f"{tmp_path}/*.jsonl") == data_identity(f"{tmp_path}/a.jsonl")

    def test_of_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "pool.jsonl").write_text("a")
        assert data_identity("~/pool.jsonl") == data_identity(f"{tmp_path}/pool.jsonl")
        assert data_identity("~/*.jsonl") == data_identity(f"{tmp_path}/pool.jsonl")

    def test_of_a_file_with_a_comma_in_its_name(self, tmp_path):
        path = tmp_path / "a,b.jsonl"
        path.write_text("x")
        assert data_identity(str(path)).startswith("a,b.jsonl:")

    def test_of_names(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("synthetic", "TIGER-Lab/MathInstruct", "tfds:gsm8k"):
            assert data_identity(name) == name

    def test_of_nothing_is_not_the_working_directory(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").write_text("x")
        assert data_identity("") == ""


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
@pytest.mark.parametrize(
    "name",
    ["manifest.json", "ids.npy", "lengths.npy", "prompt_lengths.npy", "gaps.npy", "sources.npy",
     "features.json", "dataset_info.json", "s2l_pool-pool.array_record-00000-of-00001"],
)  # fmt: skip
def test_a_damaged_pool_is_named(pool_path, tmp_path, name, damage):
    path = tmp_path / "pool"
    shutil.copytree(pool_path, path)
    (file,) = path.rglob(name)
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        places = np.flatnonzero(np.frombuffer(data, np.uint8))  # much of a file of records is padding
        at = places[len(places) // 2]
        file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])

    def read():
        pool = PreparedPool(path)
        return pool.read(range(len(pool)))

    with pytest.raises(InputError) as error:
        read()
    said = str(error.value)
    assert said.startswith(str(file) if "array_record" not in name else str(file.parent))
    assert f"remove {path} and run the same command, which tokenises the pool again" in said
    assert "\n" not in said


def test_neither_tensorflow_nor_torch_is_imported(pool_path, tmp_path):
    """Reading and writing, in a fresh interpreter."""
    program = f"""
import sys
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, prepare
pool = PreparedPool({str(pool_path)!r})
assert next(pool.originals([3]))["number"] == 3
rows = [PoolRow(1, "a", "", "b", "s", {{"a": 1}}, "f:1")]
prepare({str(tmp_path / "pool")!r}, lambda: rows, None, TokenizeSettings("plain", "separate", 9))
assert len(PreparedPool({str(tmp_path / "pool")!r})) == 1
loaded = {{name.split(".")[0] for name, module in sys.modules.items() if module}}
assert not loaded & {{"tensorflow", "torch"}}, loaded
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
