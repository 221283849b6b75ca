"""The trajectory store, and trajectories made elsewhere."""

import concurrent.futures
import json
import threading

import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.store import TrajectoryStore, Writers
from tests.support.stores import ATTRIBUTES, COLUMNS, IDS, STEPS, new_store


class TestStore:
    def test_grows_by_columns(self, tmp_path):
        store = new_store(tmp_path / "t.zarr", columns=0)
        assert store.read().shape == (5, 0)
        assert store.steps().tolist() == []
        for count, (step, column) in enumerate(zip(STEPS, COLUMNS.T, strict=True), start=1):
            store.append(step, column)
            assert store.steps().tolist() == STEPS[:count]
            assert np.array_equal(store.read(), COLUMNS[:, :count])
            assert np.array_equal(store.column(count - 1), column)
        assert store.num_examples == 5
        assert (store.read().dtype, store.steps().dtype) == (np.float32, np.int64)
        assert store.read().flags.c_contiguous

    def test_opened_again(self, tmp_path):
        new_store(tmp_path / "t.zarr", columns=2)
        store = TrajectoryStore.create(tmp_path / "t.zarr", IDS, ATTRIBUTES)
        assert np.array_equal(store.ids(), IDS)
        assert np.array_equal(store.read(), COLUMNS[:, :2])
        store.append(20, COLUMNS[:, 2])
        assert np.array_equal(TrajectoryStore(tmp_path / "t.zarr").read(), COLUMNS[:, :3])

    def test_a_reader_sees_columns_that_a_writer_adds(self, tmp_path):
        writer = new_store(tmp_path / "t.zarr", columns=1)
        reader = TrajectoryStore(tmp_path / "t.zarr")
        assert reader.read().shape == (5, 1)
        writer.append(10, COLUMNS[:, 1])
        assert reader.steps().tolist() == [0, 10]
        assert np.array_equal(reader.column(1), COLUMNS[:, 1])
        assert np.array_equal(reader.read(), COLUMNS[:, :2])

    @pytest.mark.parametrize("moment", ["before the losses", "half", "before the step", "step -1"])
    def test_killed_within_an_append(self, tmp_path, moment):
        """The column does not count, and is measured and written again."""
        import tensorstore as ts

        path = tmp_path / "t.zarr"
        new_store(path, columns=2)
        losses, steps = (
            ts.open({"driver": "zarr3", "kvstore": f"file://{path}/{name}/"}).result()
            for name in ("losses", "steps")
        )
        losses = losses.resize(exclusive_max=(5, 3)).result()
        if moment != "before the losses":
            losses[: 2 if moment == "half" else 5, 2].write(np.float32(99)).result()
        if moment == "step -1":
            steps.resize(exclusive_max=(3,)).result()
        store = TrajectoryStore.create(path, IDS, ATTRIBUTES)
        assert store.steps().tolist() == [0, 10]
        assert np.array_equal(store.read(), COLUMNS[:, :2])
        assert np.array_equal(load_trajectories(path).losses, COLUMNS[:, :2])
        store.append(20, COLUMNS[:, 2])
        store.append(500, COLUMNS[:, 3])
        assert store.steps().tolist() == STEPS
        assert np.array_equal(TrajectoryStore(path).read(), COLUMNS)

    def test_killed_while_it_was_made(self, tmp_path):
        """Without the group's metadata, which come last, it is made anew."""
        path = tmp_path / "t.zarr"
        new_store(path)
        (path / "zarr.json").unlink()
        assert new_store(path, columns=1).read().shape == (5, 1)

    @pytest.mark.parametrize("step", [500, 20, -1])
    def test_steps_go_up(self, tmp_path, step):
        store = new_store(tmp_path / "t.zarr")
        with pytest.raises(ValueError, match=f"step {step} does not come after 500"):
            store.append(step, COLUMNS[:, 0])
        assert np.array_equal(store.read(), COLUMNS)

    def test_a_column_of_another_length(self, tmp_path):
        store = new_store(tmp_path / "t.zarr", columns=2)
        with pytest.raises(ValueError, match="4"):
            store.append(20, COLUMNS[:4, 2])
        assert store.steps().tolist() == [0, 10]

    def test_another_proxys_store_is_refused(self, tmp_path):
        new_store(tmp_path / "t.zarr", columns=1)
        with pytest.raises(InputError, match="another proxy"):
            TrajectoryStore.create(tmp_path / "t.zarr", IDS, ATTRIBUTES | {"settings": "b2"})

    @pytest.mark.parametrize("other", [IDS[::-1], IDS[:4], np.append(IDS, np.uint64(3))])
    def test_other_examples(self, tmp_path, other):
        new_store(tmp_path / "t.zarr")
        with pytest.raises(InputError, match=r"5 examples with other ids .* another workdir"):
            TrajectoryStore.create(tmp_path / "t.zarr", other, ATTRIBUTES)

    def test_more_rows_than_a_chunk(self, tmp_path, monkeypatch):
        monkeypatch.setattr("s2l_jax.trajectories.store._CHUNK_ROWS", 2)
        new_store(tmp_path / "t.zarr")
        store = TrajectoryStore(tmp_path / "t.zarr")
        assert np.array_equal(store.read(), COLUMNS)
        assert np.array_equal(store.ids(), IDS)

    @pytest.mark.parametrize(
        ("size", "chunk", "count"), [(5, 2, 2), (5, 2, 4), (5, 8, 2), (7, 1, 3), (6, 3, 1)]
    )
    def test_writers_share_whole_chunks(self, size, chunk, count):
        shares = [Writers(index, count).rows(size, chunk) for index in range(count)]
        assert [row for share in shares for row in range(size)[share]] == list(range(size))
        assert all(share.start % chunk == 0 or share.start == size for share in shares)
        chunks = [-(-(share.stop - share.start) // chunk) for share in shares]
        assert max(chunks) - min(chunks) <= 1

    def test_written_by_several_at_once(self, tmp_path, monkeypatch):
        """Each writes its chunks; the column is listed when all have written."""
        monkeypatch.setattr("s2l_jax.trajectories.store._CHUNK_ROWS", 2)
        path = tmp_path / "t.zarr"
        new_store(path, columns=0)
        meeting = threading.Barrier(2, timeout=60)
        seen = {0: [], 1: []}

        def write(index):
            def barrier(name):
                seen[index].append((name, TrajectoryStore(path).steps().tolist()))
                meeting.wait()

            store = TrajectoryStore(path, Writers(index, 2, barrier))
            for step, column in zip(STEPS, COLUMNS.T, strict=True):
                mine = Writers(index, 2).rows(5, 2)
                only_mine = np.full(5, np.nan, np.float32)
                only_mine[mine] = column[mine]
                store.append(step, only_mine)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(write, range(2)))
        assert np.array_equal(TrajectoryStore(path).read(), COLUMNS)
        assert TrajectoryStore(path).steps().tolist() == STEPS
        for index in seen:
            assert seen[index][1] == ("column 0 written", [])
            assert seen[index][4] == ("column 10 written", [0])

    def test_read_by_zarr(self, tmp_path):
        zarr = pytest.importorskip("zarr")
        new_store(tmp_path / "t.zarr")
        group = zarr.open_group(str(tmp_path / "t.zarr"), mode="r")
        assert np.array_equal(group["losses"][:], COLUMNS)
        assert np.array_equal(group["ids"][:], IDS)
        assert group["steps"][:].tolist() == STEPS
        assert dict(group.attrs) == ATTRIBUTES
        assert [group[name].dtype for name in ("losses", "steps", "ids")] == [np.float32, np.int64, np.uint64]

    def test_read_by_xarray(self, tmp_path):
        xarray = pytest.importorskip("xarray")
        pytest.importorskip("zarr")
        new_store(tmp_path / "t.zarr")
        with xarray.open_zarr(tmp_path / "t.zarr", consolidated=False) as data:
            assert data.losses.dims == ("example", "checkpoint")
            assert np.array_equal(data.losses, COLUMNS)
            assert data.steps.dims == ("checkpoint",)
            assert data.steps.values.tolist() == STEPS
            assert data.ids.dims == ("example",)
            assert data.ids.values.tolist() == IDS.tolist()
            assert data.attrs["settings"] == "a1"

    def test_an_unfinished_column_does_not_count_for_others(self, tmp_path, monkeypatch):
        """What zarr and xarray find after a writer was killed between the losses and the step."""
        zarr, xarray = pytest.importorskip("zarr"), pytest.importorskip("xarray")
        path = tmp_path / "t.zarr"
        store = new_store(path, columns=2)

        def killed(name):
            if "written" in name:
                raise KeyboardInterrupt

        store = TrajectoryStore(path, Writers(barrier=killed))
        with pytest.raises(KeyboardInterrupt):
            store.append(20, COLUMNS[:, 2])
        group = zarr.open_group(str(path), mode="r")
        steps = group["steps"][:]
        assert steps.tolist() == [0, 10, -1]
        assert np.array_equal(group["losses"][:][:, steps >= 0], COLUMNS[:, :2])
        with xarray.open_zarr(path, consolidated=False) as data:
            listed = data.isel(checkpoint=data.steps.values >= 0)
            assert listed.steps.values.tolist() == [0, 10]
            assert np.array_equal(listed.losses, COLUMNS[:, :2])
        assert load_trajectories(path).steps.tolist() == [0, 10]
        new_store(path, columns=0).append(20, COLUMNS[:, 2])
        assert zarr.open_group(str(path), mode="r")["steps"][:].tolist() == [0, 10, 20]

    @pytest.mark.parametrize("step", [500, 499, 10, 9, 0, -1])
    def test_later_columns_dropped(self, tmp_path, step):
        path = tmp_path / "t.zarr"
        store = new_store(path)
        store.drop_after(step)
        kept = sum(each <= step for each in STEPS)
        assert store.steps().tolist() == STEPS[:kept]
        assert np.array_equal(TrajectoryStore(path).read(), COLUMNS[:, :kept])
        store.append(1000, COLUMNS[:, 0] + 1)
        assert TrajectoryStore(path).steps().tolist() == [*STEPS[:kept], 1000]
        assert np.array_equal(store.column(kept), COLUMNS[:, 0] + 1)

    def test_a_dropped_step_does_not_come_back(self, tmp_path):
        """Arrays that grow again have the fill value where they were cut."""
        import tensorstore as ts

        path = tmp_path / "t.zarr"
        new_store(path).drop_after(0)
        steps = ts.open({"driver": "zarr3", "kvstore": f"file://{path}/steps/"}).result()
        assert steps.resize(exclusive_max=(4,)).result()[:].read().result().tolist() == [0, -1, -1, -1]


class TestLoading:
    def test_a_store(self, tmp_path):
        new_store(tmp_path / "t.zarr", columns=3)
        loaded = load_trajectories(tmp_path / "t.zarr")
        assert np.array_equal(loaded.losses, COLUMNS[:, :3])
        assert loaded.steps.tolist() == [0, 10, 20]
        assert np.array_equal(loaded.ids, IDS)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_npy(self, tmp_path, kind):
        np.save(tmp_path / "t.npy", COLUMNS.astype(kind))
        loaded = load_trajectories(str(tmp_path / "t.npy"))
        assert loaded.losses.dtype == np.float32
        assert np.array_equal(loaded.losses, COLUMNS.astype(kind).astype(np.float32))
        assert loaded.steps.tolist() == [1, 2, 3, 4]
        assert loaded.ids is None

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "t.npz", losses=COLUMNS, steps=np.array(STEPS, np.int32), ids=IDS)
        loaded = load_trajectories(tmp_path / "t.npz")
        assert np.array_equal(loaded.losses, COLUMNS)
        assert (loaded.steps.tolist(), loaded.steps.dtype) == (STEPS, np.int64)
        assert np.array_equal(loaded.ids, IDS)
        np.savez_compressed(tmp_path / "few.npz", losses=COLUMNS)
        assert load_trajectories(tmp_path / "few.npz").steps.tolist() == [1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"loss": COLUMNS}, r"holds \['loss'\], but no array named `losses`"),
            ({"losses": COLUMNS[0]}, r"shape \(4,\) .* \[examples, checkpoints\]"),
            ({"losses": COLUMNS[None]}, r"shape \(1, 5, 4\)"),
            ({"losses": COLUMNS.astype(int)}, "type int64; a float array"),
            ({"losses": np.zeros((5, 0))}, r"shape \(5, 0\): there is nothing"),
            ({"losses": np.zeros((0, 4))}, r"shape \(0, 4\): there is nothing"),
            ({"losses": COLUMNS, "steps": np.arange(3)}, r"4 columns .* steps of shape \(3,\)"),
            ({"losses": COLUMNS, "steps": np.array(3)}, r"steps of shape \(\)"),
            ({"losses": COLUMNS, "steps": np.array([1, 3, 2, 4])}, "each above the one before"),
            ({"losses": COLUMNS, "steps": np.array(list("abcd"))}, "type <U1; one number"),
            ({"losses": COLUMNS, "ids": IDS[:4]}, r"5 rows .* ids of shape \(4,\)"),
            ({"losses": COLUMNS, "ids": IDS[:, None]}, r"ids of shape \(5, 1\)"),
            ({"losses": COLUMNS, "ids": np.arange(5) - 1}, "at least 0"),
            ({"losses": COLUMNS, "ids": np.arange(5.0)}, "type float64; one whole number"),
        ],
    )
    def test_bad_arrays(self, tmp_path, arrays, message):
        path = tmp_path / "t.npz"
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=message) as error:
            load_trajectories(path)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("none.npy", None, "does not exist; (its folder|did you mean)"),
            ("t.csv", b"1,2", r"not a trajectory store, .npy, .npz or .parquet"),
            ("t.npy", b"", "not a readable NumPy file"),
            ("t.npy", b"garbage", "not a readable NumPy file"),
            ("t.npz", b"", "not a readable NumPy file"),
            ("t.npz", b"PK\x03\x04 cut off", "not a readable NumPy file"),
        ],
    )
    def test_bad_files(self, tmp_path, name, content, message):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_trajectories(tmp_path / name)

    @pytest.mark.parametrize("name", ["t.npy", "t.npz"])
    def test_cut_files(self, tmp_path, name):
        """What a copy that broke off leaves."""
        path = tmp_path / name
        with path.open("wb") as file:
            if name == "t.npy":
                np.save(file, COLUMNS)
            else:
                np.savez(file, losses=COLUMNS)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(InputError, match="not a readable NumPy file"):
            load_trajectories(path)

    def test_objects_are_not_unpickled(self, tmp_path):
        np.save(tmp_path / "t.npy", np.array([[1.0, None]], object), allow_pickle=True)
        with pytest.raises(InputError, match="not a readable NumPy file"):
            load_trajectories(tmp_path / "t.npy")

    def test_the_other_kind_under_the_name(self, tmp_path):
        for name, write in (("t.npy", np.savez), ("t.npz", np.save)):
            with (tmp_path / name).open("wb") as file:
                write(file, **{"losses" if write is np.savez else "arr": COLUMNS})
            assert np.array_equal(load_trajectories(tmp_path / name).losses, COLUMNS)

    def test_folders_that_are_no_store(self, tmp_path):
        path = tmp_path / "t.zarr"
        path.mkdir()
        with pytest.raises(InputError, match=r"not a trajectory store: no zarr.json"):
            load_trajectories(path)
        (path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
        with pytest.raises(InputError, match="its array `losses` cannot be opened"):
            load_trajectories(path)

    def test_a_store_of_another_layout(self, tmp_path):
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(str(tmp_path / "t.zarr"), mode="w")
        group.create_array("losses", data=COLUMNS[:, 0])
        group.create_array("steps", data=np.array(STEPS))
        group.create_array("ids", data=IDS)
        with pytest.raises(InputError, match=r"shapes \[\(5,\), \(4,\), \(5,\)\]"):
            load_trajectories(tmp_path / "t.zarr")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([1.5, 2.0, 3.0, 4.0], "column 0 .* the step 1.5"),
        ([1.0, 2.0, np.nan, 4.0], "column 2 .* the step nan"),
        ([1.0, 2.0, 3.0, np.inf], "column 3 .* the step inf"),
        ([-1, 2, 3, 4], "column 0 .* the step -1"),
        (np.array([1, 2, 3, 2**63], np.uint64), "column 3 .* the step 9223372036854775808"),
    ],
)
def test_steps_are_whole_numbers(tmp_path, steps, said):
    np.savez(tmp_path / "t.npz", losses=COLUMNS, steps=np.array(steps))
    with pytest.raises(InputError, match=rf"t\.npz: {said}"):
        load_trajectories(tmp_path / "t.npz")


def test_whole_steps_may_be_stored_as_floats(tmp_path):
    np.savez(tmp_path / "t.npz", losses=COLUMNS, steps=np.array([0.0, 100.0, 2e3, 1e5]))
    assert load_trajectories(tmp_path / "t.npz").steps.tolist() == [0, 100, 2000, 100000]
