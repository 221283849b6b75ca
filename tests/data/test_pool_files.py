"""Where pools come from: every format gives the same rows, paths are found, broken files are named."""

import errno
import gzip
import json

import numpy as np
import pytest
from etils import epath

from s2l_jax.data.pool import FieldMap, read_rows
from s2l_jax.data.pool_files import plain
from s2l_jax.errors import InputError
from tests.support.pool_rows import ROWS, contents, write_jsonl


def with_every_field(rows):
    return [{"input": "", **row} for row in rows]


@pytest.fixture
def expected(tmp_path):
    return contents(read_rows(write_jsonl(tmp_path / "expected.jsonl", ROWS)))


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

    def test_hidden_files_and_folders_that_cannot_be_read(self, tmp_path, monkeypatch):
        write_jsonl(tmp_path / ".train.jsonl", ROWS)
        with pytest.raises(InputError, match=r"train.jsonl does not exist; its folder .* holds nothing"):
            read_rows(tmp_path / "train.jsonl")

        def refused(folder):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(type(epath.Path(tmp_path)), "iterdir", refused)
        with pytest.raises(InputError, match=r"does not exist; its folder .* cannot be read .Permission"):
            read_rows(tmp_path / "train.jsonl")

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
