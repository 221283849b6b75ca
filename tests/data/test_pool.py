"""Reading pools: the schema of rows, ids that are stable, bad rows that are named."""

import collections
import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data import pool
from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.data.row_ids import RowIds, joined
from s2l_jax.errors import InputError
from tests.support.paths import REPOSITORY
from tests.support.pool_rows import ROWS, contents, write_jsonl

MATHMIX = REPOSITORY.parent / "shared" / "data" / "pool" / "mathmix.jsonl"


def test_schema(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    rows = list(read_rows(path))
    assert [row.source for row in rows] == ["sums", "sums", "all", "sums"]
    assert [row.input for row in rows] == ["", "2, 3", "", ""]
    assert [row.output for row in rows] == ["2", "5\n→ five", " x ", "2"]
    assert [row.original for row in rows] == ROWS
    assert [row.place for row in rows] == [f"{path}:{line}" for line in (1, 2, 3, 4)]
    assert all(isinstance(row, PoolRow) and 0 <= row.id < 2**64 for row in rows)


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

    def test_a_field_that_no_row_below_the_limit_has_is_warned_of(self, tmp_path, caplog):
        rows = [{"instruction": "q", "output": "a"} | ({"text": "t"} if n > 4 else {}) for n in range(8)]
        path = write_jsonl(tmp_path / "pool.jsonl", rows)
        assert len(list(read_rows(path, fields=FieldMap(input="text")))) == 8
        assert not caplog.messages
        assert len(list(read_rows(path, limit=4, fields=FieldMap(input="text")))) == 4
        assert "none of the 4 rows" in caplog.text
        assert "more are not read, by limit" in caplog.text

    def test_optional_field_that_was_set_and_never_met(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", ROWS)
        with pytest.raises(InputError, match=r'none of the 4 rows .* has the field "topic"'):
            list(read_rows(path, fields=FieldMap(source="topic")))
        write_jsonl(path, [*ROWS, {**ROWS[0], "topic": "t"}])
        rows = list(read_rows(path, fields=FieldMap(source="topic")))
        assert [row.source for row in rows] == ["all"] * 4 + ["t"]


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
    """The config reads names of formats and templates there."""
    heavy = ["jax", "torch", "tensorflow", "pyarrow", "datasets", "tensorflow_datasets", "transformers"]
    modules = "s2l_jax.data.pool, s2l_jax.data.prompts, s2l_jax.data.tokens"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
