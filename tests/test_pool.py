"""Reading pools: every format gives the same rows, ids are stable, bad input is named."""

import collections
import gzip
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data import pool
from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.data.pool_files import plain
from s2l_jax.data.row_ids import IdTable, RowIds, joined
from s2l_jax.errors import InputError

REPOSITORY = pathlib.Path(__file__).parents[1]
MATHMIX = REPOSITORY.parent / "shared" / "data" / "pool" / "mathmix.jsonl"

ROWS = [
    {"source": "sums", "instruction": "1 + 1", "output": "2"},
    {"source": "sums", "instruction": "Naïve\u2028add", "input": "2, 3", "output": "5\n→ five"},
    {"source": "", "instruction": "Copy", "input": "", "output": " x "},
    {"source": "sums", "instruction": "1 + 1", "output": "2"},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def contents(rows):
    return [(row.id, row.instruction, row.input, row.output, row.source) for row in rows]


def with_every_field(rows):
    return [{"input": "", **row} for row in rows]


@pytest.fixture
def expected(tmp_path):
    return contents(read_rows(write_jsonl(tmp_path / "expected.jsonl", ROWS)))


def test_schema(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    rows = list(read_rows(path))
    assert [row.source for row in rows] == ["sums", "sums", "all", "sums"]
    assert [row.input for row in rows] == ["", "2, 3", "", ""]
    assert [row.output for row in rows] == ["2", "5\n→ five", " x ", "2"]
    assert [row.original for row in rows] == ROWS
    assert [row.place for row in rows] == [f"{path}:{line}" for line in (1, 2, 3, 4)]
    assert all(isinstance(row, PoolRow) and 0 <= row.id < 2**64 for row in rows)


class TestFormats:
    def test_json(self, tmp_path, expected):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(ROWS, indent=1))
        assert contents(read_rows(path)) == expected
        assert contents(read_rows(path, format="json")) == expected

    def test_json_lines_in_a_json_file(self, tmp_path, expected):
        assert contents(read_rows(write_jsonl(tmp_path / "a.json", ROWS))) == expected

    @pytest.mark.parametrize("name", ["a.jsonl.gz", "b.ndjson.gz", "c.json.gz"])
    def test_gzip(self, tmp_path, expected, name):
        text = "\n".join(json.dumps(row) for row in ROWS)
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        assert contents(read_rows(tmp_path / name)) == expected

    def test_parquet(self, tmp_path, expected, monkeypatch):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        monkeypatch.setattr("s2l_jax.data.pool_files._PARQUET_BATCH", 3)
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pylist(with_every_field(ROWS)), path)
        rows = list(read_rows(path))
        assert contents(rows) == expected
        assert [row.place for row in rows] == [f"{path}:{number}" for number in (1, 2, 3, 4)]
        assert rows[1].original == with_every_field(ROWS)[1]

    def test_parquet_values_become_json(self, tmp_path):
        import datetime
        import decimal

        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        row = {
            "instruction": b"bytes",
            "output": decimal.Decimal("1.50"),
            "when": datetime.date(2024, 1, 2),
            "score": float("nan"),
            "tags": [{"a": 1}],
        }
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
        (read,) = read_rows(tmp_path / "a.parquet")
        assert (read.instruction, read.output) == ("bytes", "1.50")
        assert json.loads(json.dumps(read.original, allow_nan=False)) == read.original
        assert read.original["when"] == "2024-01-02"
        assert read.original["score"] is None
        assert read.original["tags"] == [{"a": 1}]

    def test_array_values_become_json(self):
        value = {
            "scalar": np.float64(0.5),
            "missing": np.float32("nan"),
            "array": np.arange(2),
            "bytes": [b"\xc3\xa9", b"\xff"],
            3: (np.bool_(True),),
        }
        as_json = {
            "scalar": 0.5,
            "missing": None,
            "array": [0, 1],
            "bytes": ["é", "\\xff"],
            "3": [True],
        }
        assert plain(value) == as_json
        assert repr(plain(value)["scalar"]) == "0.5"

    @pytest.mark.parametrize("with_splits", [False, True])
    def test_saved_dataset(self, tmp_path, expected, with_splits):
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_list(with_every_field(ROWS))
        saved = datasets.DatasetDict(train=data, other=data.select([0])) if with_splits else data
        saved.save_to_disk(tmp_path / "saved")
        assert contents(read_rows(tmp_path / "saved")) == expected
        if with_splits:
            assert len(list(read_rows(tmp_path / "saved", split="other"))) == 1
            with pytest.raises(InputError, match='no split "test"; its splits are "train", "other"'):
                list(read_rows(tmp_path / "saved", split="test"))

    def test_hub(self, expected, monkeypatch):
        datasets = pytest.importorskip("datasets")
        calls = []

        def load_dataset(*args, **kwargs):
            calls.append((args, kwargs))
            return datasets.Dataset.from_list(with_every_field(ROWS)).to_iterable_dataset()

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        rows = list(read_rows("some-org/sums:easy", split="dev"))
        assert contents(rows) == expected
        assert rows[3].place == "hub:some-org/sums:easy[dev]:4"
        assert contents(read_rows("hub:sums")) == expected
        assert contents(read_rows("sums", format="hub")) == expected
        assert calls == [
            (("some-org/sums", "easy"), {"split": "dev", "streaming": True}),
            (("sums", None), {"split": "train", "streaming": True}),
            (("sums", None), {"split": "train", "streaming": True}),
        ]

    def test_tfds(self, tmp_path, expected, monkeypatch):
        tfds = pytest.importorskip("tensorflow_datasets")
        features = {field: tfds.features.Text() for field in ("source", "instruction", "input", "output")}

        class Sums(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict({**features, "number": np.float64}),
                    disable_shuffling=True,
                )

            def _split_generators(self, manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for number, row in enumerate(with_every_field(ROWS)):
                    yield number, {**row, "number": number / 2}

        builder = Sums(data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
        rows = list(read_rows(f"tfds:{builder.data_dir}"))
        assert contents(rows) == expected
        assert rows[1].original == {**ROWS[1], "number": 0.5}
        assert rows[1].place == f"tfds:{builder.data_dir}[train]:2"
        assert contents(read_rows(builder.data_dir)) == expected
        (first,) = read_rows(builder.data_dir, limit=1, fields=FieldMap(output="number"))
        assert first.output == "0.0"
        monkeypatch.setattr(tfds, "data_source", lambda name, split: list(map(dict, ROWS)))
        assert contents(read_rows("tfds:sums")) == expected
        with pytest.raises(InputError, match=r"TFDS dataset .* split 'test'.*array_record"):
            list(read_rows(builder.data_dir, split="test"))

    def test_synthetic(self):
        rows = list(read_rows("synthetic", limit=50))
        assert len(rows) == len({row.id for row in rows}) == 50
        assert rows[0].place == "synthetic:1"
        assert contents(read_rows("", format="synthetic", limit=50)) == contents(rows)


class TestPaths:
    def test_list_and_glob_read_in_order(self, tmp_path, expected, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for number in (0, 1, 2, 3):
            folder = tmp_path / f"d{number % 2}"
            folder.mkdir(exist_ok=True)
            write_jsonl(folder / f"{number}.jsonl", [ROWS[number]])
        (tmp_path / "e.json").write_text(json.dumps(ROWS[:1]))
        order = [0, 2, 1, 3]
        by_position = [expected[i][1:] for i in order]
        assert [row[1:] for row in contents(read_rows("d?/*.jsonl"))] == by_position
        assert [row[1:] for row in contents(read_rows(f"{tmp_path}/**/[0-3].jsonl"))] == by_position
        mixed = list(read_rows("d0/0.jsonl, e.json, d1/*.jsonl"))
        assert [row.place for row in mixed] == [
            "d0/0.jsonl:1", "e.json:1", "d1/1.jsonl:1", "d1/3.jsonl:1",
        ]  # fmt: skip
        assert len({row.id for row in mixed}) == 4

    def test_odd_file_names_are_taken_literally(self, tmp_path):
        for name in ("a,b.jsonl", "a[1].jsonl"):
            path = write_jsonl(tmp_path / name, ROWS[:2])
            assert len(list(read_rows(path))) == 2

    def test_format_overrides_the_ending(self, tmp_path, expected):
        path = write_jsonl(tmp_path / "rows.txt", ROWS)
        assert contents(read_rows(path, format="jsonl")) == expected
        with pytest.raises(InputError, match=r"rows.txt has none of the endings .jsonl, .*format"):
            read_rows(path)

    def test_missing_file(self, tmp_path):
        write_jsonl(tmp_path / "train.jsonl", ROWS)
        with pytest.raises(InputError, match=r"tran.jsonl does not exist; did you mean .*/train.js"):
            read_rows(tmp_path / "tran.jsonl")
        with pytest.raises(InputError, match=r"zzz.parquet does not exist; .* holds train.jsonl"):
            read_rows(tmp_path / "zzz.parquet")
        with pytest.raises(InputError, match=r"neither does its folder .*/nowhere"):
            read_rows(tmp_path / "nowhere" / "a.jsonl")
        with pytest.raises(InputError, match=r"matches no file"):
            read_rows(tmp_path / "*.parquet")
        with pytest.raises(InputError, match=r"gone.jsonl does not exist"):
            read_rows(f"{tmp_path}/train.jsonl,{tmp_path}/gone.jsonl")

    def test_what_looks_local_is_not_looked_up_on_the_hub(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        with pytest.raises(InputError, match=r"data/pool does not exist.*write hub:data/pool"):
            read_rows("data/pool")
        with pytest.raises(InputError, match=r"gsm8k does not exist.*write hub:gsm8k"):
            read_rows("gsm8k")

    def test_directory_of_files(self, tmp_path):
        write_jsonl(tmp_path / "a.jsonl", ROWS)
        write_jsonl(tmp_path / "b.jsonl.gz", ROWS)
        with pytest.raises(InputError, match=r"is a directory .*give .*/\*.jsonl or .*/\*.jsonl.gz"):
            read_rows(tmp_path)

    def test_a_file_named_twice(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", ROWS)
        with pytest.raises(InputError, match=r"names .*a.jsonl twice"):
            read_rows(f"{path},{tmp_path}/*.jsonl")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"format": "csv"},
                "'csv' is not known; choose one of auto, jsonl, json, parquet, hub",
            ),
            ({"on_bad_row": "ignore"}, "'ignore' is not known; choose error or skip"),
            ({"limit": -1}, "limit=-1 is negative"),
            ({"fields": FieldMap(output="")}, "fields.output is empty"),
            ({"path": ""}, "path is ''; name a file"),
        ],
    )
    def test_bad_arguments(self, tmp_path, change, message):
        path = write_jsonl(tmp_path / "a.jsonl", ROWS)
        with pytest.raises(InputError, match=message):
            read_rows(**{"path": path, **change})


class TestIds:
    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_stable_under_order_limit_and_more_files(self, tmp_path_factory, data):
        text = st.text(alphabet="ab\n é", max_size=3)
        row = st.fixed_dictionaries(
            {"instruction": text, "input": text, "output": st.sampled_from(["x", "y"])}
        )
        rows = data.draw(st.lists(row, min_size=1, max_size=12))
        folder = tmp_path_factory.mktemp("ids")
        first = list(read_rows(write_jsonl(folder / "a.jsonl", rows)))
        ids = [row.id for row in first]
        assert len(set(ids)) == len(ids)

        shuffled = data.draw(st.permutations(rows))
        again = read_rows(write_jsonl(folder / "b.jsonl", shuffled))
        assert sorted(contents(again)) == sorted(contents(first))

        limit = data.draw(st.integers(1, len(rows)))
        assert [row.id for row in read_rows(folder / "a.jsonl", limit=limit)] == ids[:limit]

        more = write_jsonl(folder / "0.jsonl", data.draw(st.lists(row, max_size=6)) + ROWS)
        larger = [row.id for row in read_rows(f"{more},{folder}/a.jsonl")]
        assert set(ids) <= set(larger)
        assert len(set(larger)) == len(larger)

    def test_id_does_not_depend_on_place_or_unmapped_fields(self, tmp_path):
        row = {"instruction": "q", "output": "a"}
        paths = [
            write_jsonl(tmp_path / "a.jsonl", [row]),
            write_jsonl(tmp_path / "b.jsonl", [{"output": "a", "instruction": "q", "score": 1}]),
        ]
        a, b = (next(iter(read_rows(path))).id for path in paths)
        assert a == b
        for field in ("instruction", "input", "output", "source"):
            other = write_jsonl(tmp_path / "c.jsonl", [{**row, field: "other"}])
            assert next(iter(read_rows(other))).id != a

    def test_fields_do_not_run_into_each_other(self):
        assert joined(["ab", ""]) != joined(["a", "b"])
        assert joined(["a", "é"]) != joined(["aé", ""])

    def test_known_value(self, tmp_path):
        """The ids of stored runs depend on this hash: it must not change."""
        path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], ROWS[0]])
        lengths = b"".join(len(text).to_bytes(8, "little") for text in ("1 + 1", "", "2", "sums"))
        content = lengths + b"1 + 12sums"
        expected = [
            int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
            for text in (content, content + (1).to_bytes(8, "little"))
        ]
        assert [row.id for row in read_rows(path)] == expected

    def test_configured_id(self, tmp_path):
        rows = [{"uid": "x", **ROWS[0]}, {"uid": 7, **ROWS[0]}]
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        digests = [hashlib.blake2b(value, digest_size=8).digest() for value in (b"x", b"7")]
        ids = [row.id for row in read_rows(path, fields=FieldMap(id="uid"))]
        assert ids == [int.from_bytes(digest, "little") for digest in digests]

    @pytest.mark.parametrize("on_bad_row", ["error", "skip"])
    def test_repeated_configured_id_names_both_rows(self, tmp_path, on_bad_row):
        rows = [{"uid": uid, **ROWS[0]} for uid in ("a", "b", "c", "b")]
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        reader = read_rows(path, fields=FieldMap(id="uid"), on_bad_row=on_bad_row)
        with pytest.raises(InputError, match=r"a.jsonl:4: its \"uid\" is 'b', .* of .*a.jsonl:2;"):
            list(reader)

    def test_two_values_with_one_hash_are_told_apart(self, tmp_path, monkeypatch):
        monkeypatch.setattr("s2l_jax.data.row_ids._hash", lambda content, k: 5 + k)
        rows = [{"uid": uid, **ROWS[0]} for uid in ("a", "b", "c")]
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        assert [row.id for row in read_rows(path, fields=FieldMap(id="uid"))] == [5, 6, 7]

    @settings(max_examples=30, deadline=None)
    @given(picks=st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=80))
    def test_occurrences_are_numbered(self, picks):
        ids, seen = RowIds(), collections.Counter()
        for content in picks:
            count = seen[content]
            suffix = count.to_bytes(8, "little") if count else b""
            digest = hashlib.blake2b(content + suffix, digest_size=8).digest()
            assert ids.assign(content) == (int.from_bytes(digest, "little"), count > 0)
            seen[content] += 1

    @settings(max_examples=30, deadline=None)
    @given(keys=st.lists(st.integers(1, 2**64 - 1) | st.integers(1, 40).map(lambda k: k << 10)))
    def test_table_is_a_set(self, keys):
        table, known = IdTable(), set()
        for key in keys:
            assert (key in table) == (key in known)
            assert table.add(key) == (key not in known)
            known.add(key)
        assert len(table) == len(known)
        assert all(key in table for key in known)

    def test_table_grows(self):
        keys = np.random.default_rng(0).integers(1, 2**63, 20_000).tolist()
        table = IdTable()
        assert all(table.add(key) for key in keys)
        assert not any(table.add(key) for key in keys)
        assert len(table) == len(keys)


BAD_LINES = {
    "not JSON": ('{"instruction": "q", "output": }', r"is not JSON \(Expecting value, column 32\)"),
    "not UTF-8": (b'{"instruction": "\xff"}', r"is not UTF-8 text \(byte 18 of the line\)"),
    "number": ("3", r"is not a JSON object but int: 3"),
    "no output": (
        '{"instruction": "q", "answer": "a"}',
        r'has no field "output"; it has "instruction", "answer"; perhaps fields.output="answer"',
    ),
    "misspelt": (
        '{"instructoin": "q", "output": "a"}',
        r'perhaps fields.instruction="instructoin"',
    ),
    "nothing near": (
        '{"x": "q", "output": "a"}',
        r'has no field "instruction"; it has "x", "output"; set fields.instruction to the one that',
    ),
    "null": ('{"instruction": "q", "output": null}', r'its "output" is null or NaN'),
    "NaN": ('{"instruction": "q", "output": NaN}', r'its "output" is null or NaN'),
    "empty": ('{"instruction": "q", "output": ""}', r'its response, "output", is empty: \'\''),
    "blank": ('{"instruction": "q", "output": " \\n\\t"}', r"is empty: ' \\n\\t'"),
    "list": (
        '{"instruction": ["q"], "output": "a"}',
        r"its \"instruction\" is not text but list: ",
    ),
    "boolean": ('{"instruction": "q", "output": true}', r'its "output" is not text but bool: True'),
    "bad input": (
        '{"instruction": "q", "input": {}, "output": "a"}',
        r'its "input" is not text but dict: {}',
    ),
    "surrogate": ('{"instruction": "\\ud800", "output": "a"}', r"has half of a surrogate pair"),
    "deep": ("[" * 100_000, r"is not JSON"),
}


class TestBadRows:
    @pytest.mark.parametrize("kind", BAD_LINES)
    def test_error_and_skip(self, tmp_path, kind):
        line, message = BAD_LINES[kind]
        path = tmp_path / "a.jsonl"
        good = json.dumps(ROWS[0]).encode()
        bad = line if isinstance(line, bytes) else line.encode()
        path.write_bytes(good + b"\n\n" + bad + b"\n" + good + b"\n")

        with pytest.raises(InputError, match=message) as caught:
            list(read_rows(path))
        assert str(caught.value).startswith(f"{path}:3: ")
        assert 'set on_bad_row="skip"' in str(caught.value)
        assert len(str(caught.value)) < 500

        reader = read_rows(path, on_bad_row="skip")
        assert [row.place for row in reader] == [f"{path}:1", f"{path}:4"]
        assert reader.num_skipped == 1
        ((place, reason),) = reader.skipped
        assert place == f"{path}:3"
        assert reason in str(caught.value)
        assert len(list(reader)) == 2, "a second pass starts afresh"
        assert reader.num_skipped == len(reader.skipped) == 1

    def test_numbers_become_their_json_text(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"instruction": 1, "output": 1536}\n{"instruction": "q", "output": 0.5}\n')
        assert [(row.instruction, row.output) for row in read_rows(path)] == [
            ("1", "1536"),
            ("q", "0.5"),
        ]

    def test_null_input_and_source_count_as_absent(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"instruction": "q", "input": NaN, "source": null, "output": "a"}')
        (row,) = read_rows(path)
        assert (row.input, row.source) == ("", "all")

    def test_byte_order_mark_and_line_ends(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() for row in ROWS))
        assert [row.original for row in read_rows(path)] == ROWS

    def test_limit_counts_good_rows_and_reads_no_further(self, tmp_path):
        rows = [ROWS[0], {"bad": 1}, ROWS[1], {"bad": 2}]
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        reader = read_rows(path, limit=2, on_bad_row="skip")
        assert [row.place for row in reader] == [f"{path}:1", f"{path}:3"]
        assert reader.num_skipped == 1
        assert len(list(read_rows(path, limit=1))) == 1

    def test_list_of_skipped_rows_is_bounded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pool, "MAX_LISTED", 2)
        reader = read_rows(write_jsonl(tmp_path / "a.jsonl", [{}] * 5 + ROWS[:1]), on_bad_row="skip")
        assert len(list(reader)) == 1
        assert (reader.num_skipped, len(reader.skipped)) == (5, 2)

    def test_empty_pool(self, tmp_path):
        for content in ("", "\n \n"):
            (tmp_path / "a.jsonl").write_text(content)
            with pytest.raises(InputError, match=r"a.jsonl has no rows"):
                list(read_rows(tmp_path / "a.jsonl"))
        (tmp_path / "a.json").write_text("[]")
        with pytest.raises(InputError, match=r"a.json has no rows"):
            list(read_rows(tmp_path / "a.json"))

    def test_every_row_skipped(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", [{"question": "q", "output": "a"}] * 3)
        with pytest.raises(InputError, match=r"all 3 rows of .* skipped; .*:1: has no field"):
            list(read_rows(path, on_bad_row="skip"))

    def test_field_map(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", [{"q": "1", "ctx": "c", "a": "2", "topic": "t"}])
        fields = FieldMap(instruction="q", input="ctx", output="a", source="topic")
        (row,) = read_rows(path, fields=fields)
        assert (row.instruction, row.input, row.output, row.source) == ("1", "c", "2", "t")
        (row,) = read_rows(path, fields=FieldMap(instruction="q", output="a", source="", input=""))
        assert (row.input, row.source) == ("", "all")

    def test_optional_field_that_was_set_and_never_met(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", ROWS)
        with pytest.raises(InputError, match=r'none of the 4 rows .* has the field "topic"'):
            list(read_rows(path, fields=FieldMap(source="topic")))
        write_jsonl(path, [*ROWS, {**ROWS[0], "topic": "t"}])
        rows = list(read_rows(path, fields=FieldMap(source="topic")))
        assert [row.source for row in rows] == ["all"] * 4 + ["t"]


class TestBrokenFiles:
    def test_json_that_is_not_an_array(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text('[{"instruction": 1,]')
        with pytest.raises(InputError, match=r"a.json is not one JSON array .*line 1 column 20"):
            list(read_rows(path))
        path.write_text('{"data": []}')
        with pytest.raises(InputError, match=r'one JSON dict with the fields "data"; it must be'):
            list(read_rows(path, format="json"))
        write_jsonl(path, ROWS)
        with pytest.raises(InputError, match=r'for one row per line set format="jsonl"'):
            list(read_rows(path, format="json"))

    def test_array_in_a_jsonl_file(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps(ROWS, indent=1))
        with pytest.raises(InputError, match=r'if the file is one JSON array, set format="json"'):
            list(read_rows(path))

    def test_truncated_gzip(self, tmp_path):
        path = tmp_path / "a.jsonl.gz"
        noise = np.random.default_rng(0).bytes(4000).hex()
        text = json.dumps({"instruction": "q", "output": noise}) + "\n"
        path.write_bytes(gzip.compress(text.encode() * 3)[:-900])
        with pytest.raises(InputError, match=r"a.jsonl.gz cannot be read .*copy it again"):
            list(read_rows(path))
        path.write_bytes(b"plain")
        with pytest.raises(InputError, match=r"a.jsonl.gz cannot be read .*[Nn]ot a gzipped"):
            list(read_rows(path))

    def test_not_parquet(self, tmp_path):
        pytest.importorskip("pyarrow")
        (tmp_path / "a.parquet").write_text("no parquet here")
        with pytest.raises(InputError, match=r"a.parquet is not readable as Parquet after 0 rows"):
            list(read_rows(tmp_path / "a.parquet"))

    def test_broken_saved_dataset(self, tmp_path):
        pytest.importorskip("datasets")
        (tmp_path / "state.json").write_text("{}")
        with pytest.raises(InputError, match=r"saved dataset .* cannot be read .*save it again"):
            list(read_rows(tmp_path))

    @pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("odd client")])
    def test_unreachable_hub_says_how_to_use_local_files(self, monkeypatch, error):
        datasets = pytest.importorskip("datasets")

        def load_dataset(*args, **kwargs):
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(InputError) as caught:
            list(read_rows("some-org/sums:easy"))
        for part in (
            "'some-org/sums:easy', split 'train'",
            type(error).__name__,
            str(error),
            "hf download some-org/sums --repo-type dataset --local-dir DIR",
            "DIR/data/*.parquet",
        ):
            assert part in str(caught.value)

    def test_connection_lost_midway(self, monkeypatch):
        datasets = pytest.importorskip("datasets")

        def rows(*args, **kwargs):
            yield ROWS[0]
            raise ConnectionError("reset by peer")

        monkeypatch.setattr(datasets, "load_dataset", rows)
        reader = iter(read_rows("hub:some-org/sums"))
        assert next(reader).instruction == "1 + 1"
        with pytest.raises(InputError, match="reset by peer"):
            next(reader)


def test_an_error_of_the_caller_passes_through(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(OSError, match="mine"):  # noqa: PT012
        for _ in read_rows(path):
            raise OSError("mine")


def test_mathmix():
    if not MATHMIX.exists():
        pytest.skip("development data is absent")
    rows = list(read_rows(MATHMIX))
    sources = collections.Counter(row.source for row in rows)
    assert len(rows) == len({row.id for row in rows}) == 34_931
    assert sources["gsm8k"] == 7_473
    topics = [count for source, count in sources.items() if source.startswith("mathematics/")]
    assert (len(topics), max(topics), min(topics)) == (55, 4_434, 177)
    assert sum(topics) + 7_473 == len(rows)


def test_import_is_light():
    heavy = ["torch", "tensorflow", "pyarrow", "datasets", "tensorflow_datasets", "transformers"]
    code = f"import sys, s2l_jax.data.pool; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
