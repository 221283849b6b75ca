"""What a selection leaves: the table of reasons, the summary, and exports that their readers read back."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.pool import FieldMap, read_rows
from s2l_jax.errors import InputError
from s2l_jax.selection import Selection, SelectionInputs, select
from s2l_jax.selection.export import ADDED, FILES, missing_exports, write_exports, write_subset

pq = pytest.importorskip("pyarrow.parquet")


def chosen(size=200, **options):
    rng = np.random.default_rng(3)
    given = SelectionInputs(
        trajectories=rng.gamma(2, 1, (size, 3)).astype(np.float32),
        ids=rng.integers(0, 2**64, size, dtype=np.uint64),
        sources=rng.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1], size=size).tolist(),
        num_tokens=rng.integers(5, 50, size),
    )
    return given, select(given, 60, num_clusters=5, **options)


def table_of(selection, folder, **options):
    selection.save(folder, **options)
    return pq.read_table(folder / "clusters.parquet").to_pylist()


def test_the_table_says_why(tmp_path):
    given, selection = chosen()
    table = table_of(selection, tmp_path, trajectories=given.trajectories)
    assert len(table) == 200
    for row, line in enumerate(table):
        np.testing.assert_array_equal(np.float32(line["losses"]), given.trajectories[row])
        assert line["loss"] == line["losses"][-1]
        assert line["tokens"] == given.num_tokens[row]
        assert line["id"] == given.ids[row]
        own = [other for other in table if other["cluster"] == line["cluster"]]
        assert line["rank_in_cluster"] == sum(other["rank"] < line["rank"] for other in own)
        word, _, reason = line["reason"].partition(": ")
        assert word == ("taken" if line["selected"] else "left")
        whole = {other["selected"] for other in table if other["source"] == line["source"]} == {True}
        assert reason in (
            ["drawn at random: its source was not clustered"] if whole
            else ["its cluster's share", "clusters of at most 2 rows come last"]
        )  # fmt: skip
    picked = [line["selected"] for line in sorted(table, key=lambda line: line["rank"])]
    assert picked == [True] * 60 + [False] * 140


def test_scores_and_what_is_not_known(tmp_path):
    losses = np.arange(12, dtype=np.float32)[:, None]
    table = table_of(select(losses, 4, method="least_confidence"), tmp_path / "scored")
    assert [line["score"] for line in table] == losses[:, 0].tolist()
    assert {line["reason"] for line in table if line["selected"]} == {
        "taken: loss at the last checkpoint, highest first"
    }
    table = table_of(select(SelectionInputs(ids=[5, 6, 9]), 1, method="random"), tmp_path / "bare")
    for name in ("source", "score", "tokens", "loss", "rank_in_cluster"):
        assert [line[name] for line in table] == [None] * 3
    assert "losses" not in table[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(0, 99))
def test_of_a_slice(tmp_path_factory, size, seed):
    from s2l_jax.selection.selector import select_from_slice

    rng = np.random.default_rng(seed)
    total = 50
    rows = np.sort(rng.permutation(total)[:size])
    losses = rng.gamma(2, 1, (size, 3)).astype(np.float32)
    pool = SelectionInputs(ids=np.arange(total), sources=["x"] * total, num_tokens=np.arange(total))
    selection = select_from_slice(
        pool, rows, pool.rows(rows).replace(trajectories=losses), budget=0.5, num_clusters=3
    )
    assert len(selection.indices) == max(1, round(size / 2))
    folder = tmp_path_factory.mktemp("slice")
    table = table_of(selection, folder, trajectories=losses, rows=rows)
    for row, line in enumerate(table):
        inside = row in rows
        assert (line["cluster"] >= 0) == inside
        if inside:
            np.testing.assert_array_equal(np.float32(line["losses"]), losses[rows.tolist().index(row)])
        else:
            assert line["reason"] == "not in the slice that was selected from"
            assert [line[k] for k in ("losses", "loss", "rank", "rank_in_cluster")] == [None] * 4
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["num_candidates"] == size
    assert sum(cluster["size"] for cluster in summary["clusters"]) == size
    loaded = type(selection).load(folder)
    assert np.array_equal(loaded.ranks, selection.ranks)
    assert np.array_equal(loaded.first(1).indices, selection.first(1).indices)


def test_the_summary_counts_rows_tokens_and_losses(tmp_path):
    given, selection = chosen()
    selection.save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    last, tokens, labels = given.trajectories[:, -1], given.num_tokens, selection.labels
    taken = np.isin(np.arange(200), selection.indices)
    sources = np.array(given.sources)

    def expected(rows):
        return {
            "tokens": {"pool": tokens[rows].sum(), "selected": tokens[rows & taken].sum()},
            "loss_quantiles": {
                name: np.quantile(last[part], [0, 0.25, 0.5, 0.75, 1])
                for name, part in (("pool", rows), ("selected", rows & taken))
                if part.any()
            },
        }

    def check(part, rows):
        want = expected(rows)
        assert part["tokens"] == want["tokens"]
        assert set(part["loss_quantiles"]) == set(want["loss_quantiles"])
        for name, values in part["loss_quantiles"].items():
            np.testing.assert_allclose(values, want["loss_quantiles"][name], atol=1e-5)

    check(summary, np.ones(200, bool))
    for name, part in summary["sources"].items():
        check(part, sources == name)
        assert part["pool"] == (sources == name).sum()
        assert part["selected"] == (taken & (sources == name)).sum()
    for part in summary["clusters"]:
        check(part, labels == part["cluster"])
    assert summary["unit"] == "examples"
    assert len(summary["indices_sha256"]) == 64


ROWS = [
    {"instruction": f"é{n}\n", "output": f"out {n}", "n": n, **({"input": "more"} if n % 3 else {})}
    for n in range(200)
]


def originals(numbers):
    return (ROWS[number] for number in numbers)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    _, selection = chosen()
    assert missing_exports(folder, list(FILES)) == list(FILES)
    write_exports(folder, selection, originals, list(FILES))
    assert missing_exports(folder, list(FILES)) == []
    names = [name for file in FILES.values() for name in (file, f"{file}.sha256")]
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)
    return folder, selection


def added(selection):
    columns = (selection.ids, selection.sources, selection.labels)
    own = [[column[row].item() for column in columns] for row in selection.indices]
    return [[*values, float(weight)] for values, weight in zip(own, selection.weights, strict=True)]


def filled(selection):
    """The chosen rows with every field, as formats with columns have them."""
    names = ["instruction", "output", "n", "input"]
    return [
        {name: ROWS[row].get(name) for name in names} | dict(zip(ADDED, values, strict=True))
        for row, values in zip(selection.indices, added(selection), strict=True)
    ]


def test_jsonl_has_the_rows_as_they_came(exported):
    folder, selection = exported
    lines = (folder / "subset.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [ROWS[row] for row in selection.indices]


def test_parquet_read_by_pyarrow_and_by_pool_readers(exported):
    from s2l_jax.data.pool import read_rows

    folder, selection = exported
    assert pq.read_table(folder / "subset.parquet").to_pylist() == filled(selection)
    rows = list(read_rows(folder / "subset.parquet", fields=FieldMap(source="s2l_source")))
    assert [row.instruction for row in rows] == [ROWS[row]["instruction"] for row in selection.indices]


def test_datasets_loads_the_folder_and_the_parquet_and_jsonl_files(exported, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder, selection = exported
    assert list(datasets.load_from_disk(str(folder / "dataset"))) == filled(selection)
    for kind, file in (("parquet", "subset.parquet"), ("json", "messages.jsonl"), ("json", "subset.jsonl")):
        loaded = datasets.load_dataset(
            kind, data_files=str(folder / file), split="train", cache_dir=str(tmp_path)
        )
        assert len(loaded) == 60
        if file == "messages.jsonl":
            assert loaded[0]["messages"][1]["content"] == ROWS[selection.indices[0]]["output"]


def test_messages(exported):
    folder, selection = exported
    lines = [json.loads(line) for line in (folder / "messages.jsonl").read_text().splitlines()]
    for line, row, values in zip(lines, selection.indices, added(selection), strict=True):
        request = ROWS[row]["instruction"] + ("\n\nmore" if row % 3 else "")
        assert line["messages"] == [
            {"role": "user", "content": request},
            {"role": "assistant", "content": f"out {row}"},
        ]
        assert [line[k] for k in ("id", "source", "cluster", "weight")] == [str(values[0]), *values[1:]]


def test_messages_of_rows_that_have_some(tmp_path):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    selection = select(SelectionInputs(ids=[1, 2]), 1, method="random")
    write_exports(
        tmp_path, selection, lambda numbers: ({"talk": turns} for _ in numbers), ["messages"],
        FieldMap(messages="talk"),
    )  # fmt: skip
    line = json.loads((tmp_path / "messages.jsonl").read_text())
    assert line["messages"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert line["source"] == ""


def test_official_files_are_what_that_code_reads(exported):
    folder, selection = exported
    labeled, unlabeled = (
        json.loads((folder / "official" / f"{name}.json").read_text()) for name in ("labeled", "unlabeled")
    )
    indices = np.load(folder / "official" / "labeled_idx.npy")
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, selection.indices)
    left = [row for row in range(len(ROWS)) if row not in set(indices)]
    for rows, places in ((labeled, indices), (unlabeled, left)):
        assert [row["instruction"] for row in rows] == [ROWS[place]["instruction"] for place in places]
        assert [row["output"] for row in rows] == [str(ROWS[place]["output"]) for place in places]
        assert all(row["source"] == "all" for row in rows)
    read = list(read_rows(folder / "official" / "labeled.json"))
    assert [row.instruction for row in read] == [row["instruction"] for row in labeled]


def test_official_rows_have_the_names_of_that_code(tmp_path):
    """Whatever a pool calls its fields; a conversation is its two texts."""
    rows = [
        {"input": "2 + 3?", "answer": 5, "kind": "sums", "note": 1},
        {"input": "2 + 4?", "answer": "6", "kind": "sums", "instruction": "of another use"},
        {"talk": ["2 + 5?", "7"], "kind": "talk"},
    ]
    fields = FieldMap(instruction="input", input="", output="answer", messages="talk", source="kind")
    selection = select(np.ones((3, 1), np.float32), 3, method="full")
    write_exports(tmp_path, selection, lambda indices: (rows[i] for i in indices), ["official"], fields)
    written = json.loads((tmp_path / "official" / "labeled.json").read_text())
    assert [{name: row[name] for name in ("instruction", "output", "source")} for row in written] == [
        {"instruction": "2 + 3?", "output": "5", "source": "sums"},
        {"instruction": "2 + 4?", "output": "6", "source": "sums"},
        {"instruction": "2 + 5?", "output": "7", "source": "talk"},
    ]
    assert not any("input" in row for row in written)
    assert written[0]["note"] == 1
    assert json.loads((tmp_path / "official" / "unlabeled.json").read_text()) == []


def test_types_are_found_over_all_rows(tmp_path):
    size = 2500
    selection = select(SelectionInputs(ids=np.arange(size)), size, method="full")
    rows = [{"a": None, "b": None, "c": 1} for _ in range(size)]
    rows[2200] = {"a": "late", "b": None, "c": 1.5}
    write_exports(tmp_path, selection, lambda numbers: (rows[n] for n in numbers), ["parquet"])
    read = pq.read_table(tmp_path / "subset.parquet").select(["a", "b", "c"]).to_pylist()
    assert read[2200] == {"a": "late", "b": None, "c": 1.5}
    assert read[0] == {"a": None, "b": None, "c": 1.0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "text"}, "no common type in Parquet.*take parquet and datasets out"),
        ({"s2l_id": 3}, "a field 's2l_id' of their own"),
    ],
)
@pytest.mark.parametrize("place", [1, 2200])
@pytest.mark.parametrize("name", ["parquet", "datasets"])
def test_rows_that_make_no_table(tmp_path, row, message, place, name):
    size = 2500
    selection = select(SelectionInputs(ids=np.arange(size)), size, method="full")
    rows = [{"a": 1}] * size
    rows[place] = row
    with pytest.raises(InputError, match=message):
        write_exports(tmp_path, selection, lambda numbers: (rows[n] for n in numbers), [name])
    assert list(tmp_path.iterdir()) == []


def test_write_subset_streams_and_leaves_no_part(tmp_path):
    path = tmp_path / "deep" / "subset.jsonl"
    rows = [{"q": "é\n", "n": 1}, {"other": [None, True]}]
    assert write_subset(path, iter(rows)) == 2
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == rows

    def breaks():
        yield rows[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_subset(path, breaks())
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert [file.name for file in path.parent.iterdir()] == ["subset.jsonl"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "digest"])
def test_a_damaged_export_is_written_again(tmp_path, name, damage):
    if name == "datasets":
        pytest.importorskip("datasets")
    _, selection = chosen()
    write_exports(tmp_path, selection, originals, list(FILES))
    path = tmp_path / FILES[name]
    inner = [*path.glob("*.arrow"), *path.glob("labeled.json")]
    file = inner[0] if inner else path
    whole = file.read_bytes()
    if damage == "digest":
        (tmp_path / f"{FILES[name]}.sha256").unlink()
    else:
        half = len(whole) // 2
        file.write_bytes(
            whole[:half] + (b"" if damage == "cut" else bytes([whole[half] ^ 1]) + whole[half + 1 :])
        )
    assert missing_exports(tmp_path, list(FILES)) == [name]
    write_exports(tmp_path, selection, originals, [name])
    assert missing_exports(tmp_path, list(FILES)) == []
    assert file.read_bytes() == whole


def test_digests_of_exports_are_those_of_sha256sum(tmp_path):
    _, selection = chosen()
    write_exports(tmp_path, selection, originals, ["jsonl"])
    digest = hashlib.sha256((tmp_path / "subset.jsonl").read_bytes()).hexdigest()
    assert (tmp_path / "subset.jsonl.sha256").read_text() == f"{digest}  subset.jsonl\n"


@pytest.mark.parametrize("name", ["indices.npy", "centroids.npy", "clusters.parquet", "summary.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_selection_is_named(tmp_path, name, damage):
    _, selection = chosen()
    selection.save(tmp_path)
    file, whole = tmp_path / name, (tmp_path / name).read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        at = len(whole) // 2
        file.write_bytes(whole[:at] + (b"" if damage == "cut" else bytes([whole[at] ^ 1]) + whole[at + 1 :]))
    with pytest.raises(InputError) as error:
        Selection.load(tmp_path)
    said = str(error.value)
    assert name in said
    assert str(tmp_path) in said
    assert "\n" not in said
