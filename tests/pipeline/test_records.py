"""What a workdir remembers, and files that are written whole or not at all."""

import errno
import json
import os

import numpy as np
import pytest
from etils import epath

from s2l_jax import artifacts, console, integrity
from s2l_jax.errors import InputError
from s2l_jax.records import Record, conflicts, stored_digests, stored_results

SETTINGS = {"seed": 0, "train": {"steps": 10, "learning_rate": 1e-3}, "names": ["a", "b"]}


def changed(**train):
    return SETTINGS | {"train": SETTINGS["train"] | train}


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / "target" / "s2l"


class TestRecord:
    def test_a_finished_part_is_not_made_again(self, folder):
        record = Record(folder, "target/s2l", SETTINGS)
        assert not record.done
        record.finish({"loss": np.float32(0.5), "sizes": np.arange(3), "steps": 10})
        again = Record(folder, "target/s2l", SETTINGS)
        assert again.done
        assert again.results == record.results == {"loss": 0.5, "sizes": [0, 1, 2], "steps": 10}
        assert again.seconds >= 0
        assert stored_results(folder)["results"] == again.results

    def test_time_is_that_of_all_sittings(self, folder, monkeypatch):
        clock = iter([0.0, 10.0, 100.0, 107.0])
        monkeypatch.setattr("time.monotonic", lambda: next(clock))
        record = Record(folder, "target/s2l", SETTINGS)
        with pytest.raises(KeyboardInterrupt), record.counting():
            raise KeyboardInterrupt
        assert stored_results(folder) is None
        (folder / "checkpoints").mkdir()
        record = Record(folder, "target/s2l", SETTINGS)
        with record.counting():
            record.finish({})
        assert stored_results(folder)["seconds"] == 17.0

    def test_time_of_other_settings_does_not_count(self, folder, monkeypatch):
        clock = iter([0.0, 10.0, 100.0, 107.0])
        monkeypatch.setattr("time.monotonic", lambda: next(clock))
        with pytest.raises(KeyboardInterrupt), Record(folder, "target/s2l", SETTINGS).counting():
            raise KeyboardInterrupt
        Record(folder, "target/s2l", changed(steps=20)).finish({})
        assert stored_results(folder)["seconds"] == 7.0

    def test_what_json_makes_of_settings_is_no_change(self, folder):
        Record(folder, "target/s2l", SETTINGS | {"names": ("a", "b")}).finish({})
        assert Record(folder, "target/s2l", SETTINGS).done

    def test_settings_go_by_their_dotted_names(self, folder):
        Record(folder, "target/s2l", SETTINGS).finish({})
        flat = {"seed": 0, "train.steps": 10, "train.learning_rate": 1e-3, "names": ["a", "b"]}
        assert Record(folder, "target/s2l", flat).done
        assert artifacts.read_json(folder / "stage.json")["settings"] == flat

    def test_an_unfinished_part_goes_on(self, folder):
        Record(folder, "target/s2l", SETTINGS)
        (folder / "checkpoints").mkdir()
        assert stored_results(folder) is None
        record = Record(folder, "target/s2l", SETTINGS)
        assert not record.done
        assert (folder / "checkpoints").exists()

    @pytest.mark.parametrize("finished", [True, False])
    @pytest.mark.parametrize(
        ("settings", "shown"),
        [
            (changed(steps=20), ["train.steps: 10 before, 20 now"]),
            (
                changed(steps=20, learning_rate=1e-4),
                ["train.learning_rate: 0.001 before, 0.0001 now", "train.steps: 10 before, 20 now"],
            ),
            (changed(new=1), ["train.new: absent before, 1 now"]),
            (changed(new="absent"), ["train.new: absent before, 'absent' now"]),
            ({"seed": 0, "names": ["a", "b"]}, ["train.steps: 10 before, absent now"]),
            (SETTINGS | {"names": ["b", "a"]}, ["names: ['a', 'b'] before, ['b', 'a'] now"]),
            (SETTINGS | {"seed": "0"}, ["seed: 0 before, '0' now"]),
        ],
    )
    def test_other_settings_are_refused(self, folder, finished, settings, shown):
        record = Record(folder, "target/s2l", SETTINGS)
        (folder / "checkpoints").mkdir()
        if finished:
            record.finish({"steps": 10})
        before = (folder / "stage.json").read_bytes()
        with pytest.raises(InputError, match="made with other settings") as error:
            Record(folder, "target/s2l", settings)
        for line in shown:
            assert f"\n  {line}" in str(error.value)
        assert str(folder) in str(error.value)
        assert "Use another name, another --workdir" in str(error.value)
        assert "\n  seed: 0 before, 0" not in str(error.value)
        assert (folder / "stage.json").read_bytes() == before

    def test_a_finished_part_without_files_keeps_its_meaning_too(self, folder):
        Record(folder, "imported", SETTINGS).finish({})
        with pytest.raises(InputError, match="Use another --workdir"):
            Record(folder, "imported", changed(steps=20))

    def test_a_part_that_made_nothing_may_be_put_right(self, folder):
        """A mistyped path is met after the settings are written; the right one must then do."""
        Record(folder, "target/s2l", SETTINGS)
        (folder / ".stage.json.1234.tmp").write_text("cut off")
        record = Record(folder, "target/s2l", changed(steps=20))
        assert not record.done
        record.finish({})
        assert Record(folder, "target/s2l", changed(steps=20)).done
        with pytest.raises(InputError, match="made with other settings"):
            Record(folder, "target/s2l", SETTINGS)

    def test_results_that_are_no_json_leave_the_part_unfinished(self, folder):
        record = Record(folder, "target/s2l", SETTINGS)
        with pytest.raises((TypeError, ValueError)):
            record.finish({"loss": float("nan")})
        assert not Record(folder, "target/s2l", SETTINGS).done

    @pytest.mark.parametrize("finished", [True, False])
    @pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
    def test_a_damaged_record_is_named(self, folder, finished, damage):
        record = Record(folder, "target/s2l", SETTINGS)
        if finished:
            record.finish({"loss": 1.25})
        file = folder / "stage.json"
        data = file.read_bytes()
        at = data.index(b"0.001")
        changed = {"flip": data[:at] + b"0.003" + data[at + 5 :], "cut": data[: len(data) // 2], "empty": b""}
        file.write_bytes(changed[damage])
        said = f"^{file} is not as it was written: take it from a copy, or remove {folder} and run the same"
        for read in (lambda: Record(folder, "target/s2l", SETTINGS), lambda: stored_results(folder)):
            with pytest.raises(InputError, match=said):
                read()

    def test_a_record_that_is_gone_from_what_it_is_of(self, folder):
        """What is there may have been made with any settings: it is not gone on with."""
        Record(folder, "target/s2l", SETTINGS)
        (folder / "checkpoints").mkdir()
        (folder / "stage.json").unlink()
        with pytest.raises(
            InputError, match=rf"^{folder}/stage\.json is gone.*remove {folder} and run the same"
        ):
            Record(folder, "target/s2l", changed(steps=20))
        with pytest.raises(InputError, match=rf"^{folder}/stage\.json is gone"):
            conflicts(folder, SETTINGS)

    def test_digests_of_files_are_kept(self, folder):
        record = Record(folder, "target/s2l", SETTINGS)
        artifacts.write_text(folder / "hf" / "config.json", "{}")
        artifacts.write_text(folder / "notes.txt", "")
        record.finish({}, files=["hf"], digests=lambda: {"elsewhere": "00"})
        kept = stored_digests(folder)
        assert kept == integrity.digests(folder, ["hf"]) | {"elsewhere": "00"}
        assert list(kept) == ["hf/config.json", "elsewhere"]

    def test_nothing_there(self, folder):
        assert stored_results(folder) is None
        assert not folder.exists()


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


class TestAtomicWriting:
    @pytest.fixture
    def path(self, tmp_path):
        path = epath.Path(tmp_path) / "results.json"
        artifacts.write_json(path, {"old": 1})
        return path

    @pytest.mark.parametrize("step", ["write_bytes", "replace"])
    def test_a_full_disk_leaves_the_old_file(self, path, monkeypatch, step):
        monkeypatch.setattr(type(path), step, no_space)
        with pytest.raises(OSError, match="No space left") as error:
            artifacts.write_json(path, {"new": 2})
        assert error.value.errno == errno.ENOSPC
        monkeypatch.undo()
        assert artifacts.read_json(path) == {"old": 1}
        assert [f.name for f in path.parent.iterdir()] == ["results.json"]

    def test_a_disk_that_fills_half_way(self, path, monkeypatch):
        whole = type(path).write_bytes

        def half(self, data):
            whole(self, data[: len(data) // 2])
            no_space()

        monkeypatch.setattr(type(path), "write_bytes", half)
        with pytest.raises(OSError, match="No space left"):
            artifacts.write_npy(path, np.zeros(1000))
        monkeypatch.undo()
        assert artifacts.read_json(path) == {"old": 1}
        assert [f.name for f in path.parent.iterdir()] == ["results.json"]

    def test_an_interrupt_cleans_up(self, path, monkeypatch):
        def interrupted(self, target):
            raise KeyboardInterrupt

        monkeypatch.setattr(type(path), "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            artifacts.write_text(path, "new")
        monkeypatch.undo()
        assert [f.name for f in path.parent.iterdir()] == ["results.json"]

    @pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}, object(), {1, 2}])
    def test_what_is_no_json_is_refused_before_anything_is_written(self, path, value):
        with pytest.raises((TypeError, ValueError)):
            artifacts.write_json(path, value)
        assert artifacts.read_json(path) == {"old": 1}

    def test_a_full_disk_leaves_a_record_as_it_was(self, folder, monkeypatch):
        record = Record(folder, "target/s2l", SETTINGS)
        monkeypatch.setattr(type(folder), "write_bytes", no_space)
        with pytest.raises(OSError, match="No space left"):
            record.finish({"loss": 1.0})
        monkeypatch.undo()
        assert not Record(folder, "target/s2l", SETTINGS).done
        assert stored_results(folder) is None


class TestReading:
    def test_json(self, tmp_path):
        path = tmp_path / "deep" / "er" / "a.json"
        value = {"é\ud800": [2**64 - 1, None, 1.5], "n": np.float32(0.25), "a": np.arange(2)}
        artifacts.write_json(path, value)
        assert artifacts.read_json(str(path)) == {
            "é\ud800": [2**64 - 1, None, 1.5],
            "n": 0.25,
            "a": [0, 1],
        }
        assert path.read_text().endswith("}\n")
        json.loads(path.read_bytes())

    @pytest.mark.parametrize("mmap", [True, False])
    def test_npy(self, tmp_path, mmap):
        array = np.arange(12, dtype=np.uint64).reshape(3, 4)
        artifacts.write_npy(tmp_path / "a.npy", array)
        read = artifacts.read_npy(tmp_path / "a.npy", mmap=mmap)
        assert isinstance(read, np.memmap) == mmap
        assert read.dtype == array.dtype
        assert np.array_equal(read, array)

    def test_objects_are_neither_written_nor_read(self, tmp_path):
        array = np.array([{"a": 1}], object)
        with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
            artifacts.write_npy(tmp_path / "a.npy", array)
        assert not os.listdir(tmp_path)
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
            artifacts.read_npy(tmp_path / "a.npy")


class TestConsole:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.04, "0.0 s"),
            (59.94, "59.9 s"),
            (60, "1 min 00 s"),
            (3599.4, "59 min 59 s"),
            (3599.6, "1 h 00 min"),
            (90_000, "25 h 00 min"),
        ],
    )
    def test_duration(self, seconds, text):
        assert console.duration(seconds) == text

    def test_a_line_now_and_then_without_a_terminal(self, monkeypatch, capsys):
        now = [0.0]
        monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
        progress = console.Progress("training", 100, "steps", done=20)
        for done in range(21, 61):
            now[0] += 1
            progress.update(done, f"loss {done}")
        progress.close("loss 0.5")
        lines = capsys.readouterr().err.splitlines()
        assert lines == [
            "training: 35/100 steps in 15.0 s, 1 min 05 s left, loss 35",
            "training: 50/100 steps in 30.0 s, 50.0 s left, loss 50",
            "training: 60/100 steps in 40.0 s, 40.0 s left, loss 0.5",
        ]

    def test_of_unknown_length(self, monkeypatch, capsys):
        monkeypatch.setattr(console.time, "monotonic", lambda: 0.0)
        progress = console.Progress("tokenising", 0, "rows")
        progress.update(7)
        progress.close()
        assert capsys.readouterr().err == "tokenising: 7 rows in 0.0 s\n"
