"""A workdir on an object store holds what a local one does, after interruptions and full stores too."""

import json
import uuid

import jax
import numpy as np
import pytest
from etils import epath

from s2l_jax import artifacts
from s2l_jax.data.identity import data_identity
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, prepare
from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.pipeline import run as pipeline
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.trajectories.store import TrajectoryStore
from tests.support import fake_object_store
from tests.support.pipeline_kills import small_config
from tests.support.tensorboard import curve

pytestmark = pytest.mark.long

pytest.importorskip("gcsfs")
RUN = "gs://bucket/run"


@pytest.fixture(scope="module")
def store():
    with fake_object_store.start() as store:
        yield store


@pytest.fixture
def folder(store, request):
    """An empty folder of the store."""
    store.refusal = 0
    yield epath.Path(f"gs://bucket/{request.node.originalname}/{uuid.uuid4().hex}")
    store.refusal = 0


def within(folder):
    """A folder's name in its bucket."""
    return str(folder).removeprefix("gs://bucket/")


class TestFolders:
    def test_written_locally_and_published(self, folder, store):
        with artifacts.writing_folder(folder) as local:
            (local / "a.txt").write_text("a")
            (local / "deep" / "er").mkdir(parents=True)
            (local / "deep" / "er" / "b.bin").write_bytes(bytes(11_000_000))  # more than one part
            assert not folder.exists()
        assert not local.exists()
        names = [file.relative_to(folder).as_posix() for file in artifacts.files_under(folder)]
        assert names == ["a.txt", "deep/er/b.bin"]
        assert (folder / "deep" / "er" / "b.bin").stat().length == 11_000_000
        with artifacts.reading_folder(folder) as copy:
            assert (copy / "deep" / "er" / "b.bin").read_bytes() == bytes(11_000_000)
        assert not copy.exists()

    def test_nothing_is_published_after_a_failure(self, folder):
        with pytest.raises(ZeroDivisionError), artifacts.writing_folder(folder) as local:  # noqa: PT012
            (local / "a.txt").write_text("a")
            raise ZeroDivisionError
        assert not folder.exists()

    def test_a_local_folder_stands_for_itself(self, tmp_path):
        with artifacts.writing_folder(tmp_path / "new") as local:
            assert local == epath.Path(tmp_path / "new")
            (local / "a.txt").write_text("a")
        with artifacts.reading_folder(local) as again:
            assert again == artifacts.local_copy(local) == local
        assert artifacts.files_under(tmp_path) == [local / "a.txt"]

    def test_a_copy_is_made_once_and_again_after_a_change(self, folder):
        (folder / "a.json").write_text("1")
        (folder / "a.bin").write_text("1")
        copy = artifacts.local_copy(folder, ["*.json"])
        assert [file.name for file in copy.iterdir()] == ["a.json"]
        assert artifacts.local_copy(folder, ["*.json"]) == copy
        (folder / "a.json").write_text("22")
        assert (artifacts.local_copy(folder, ["*.json"]) / "a.json").read_text() == "22"
        artifacts.remove_copies()
        assert not copy.exists()

    def test_moved(self, folder):
        (folder / "4" / "d" / "x").write_text("x")
        artifacts.move_folder(folder / "4", folder / "aside" / "4-1")
        assert artifacts.files_under(folder) == [folder / "aside" / "4-1" / "d" / "x"]

    def test_listings_are_not_remembered(self, folder, store):
        (folder / "a").write_text("a")
        assert [file.name for file in folder.iterdir()] == ["a"]
        store.put(f"{within(folder)}/b", b"b")  # as another process would
        assert (folder / "b").exists()
        assert sorted(file.name for file in folder.iterdir()) == ["a", "b"]

    def test_a_file_is_uploaded_when_it_is_whole(self, folder):
        with artifacts.writing(folder / "a.jsonl") as file:
            file.write_text("1\n")
            assert not folder.exists()
        with pytest.raises(ZeroDivisionError), artifacts.writing(folder / "a.jsonl") as file:  # noqa: PT012
            file.write_text("2\n")
            raise ZeroDivisionError
        assert (folder / "a.jsonl").read_text() == "1\n"
        assert [file.name for file in folder.iterdir()] == ["a.jsonl"]

    @pytest.mark.parametrize("refusal", [403, 413])  # gcsfs has errors of its own for most others
    def test_a_full_store_leaves_the_old_file(self, folder, store, refusal):
        artifacts.write_json(folder / "results.json", {"old": 1})
        store.refusal = refusal
        with pytest.raises(OSError, match="quota"):
            artifacts.write_json(folder / "results.json", {"new": 1})
        assert artifacts.read_json(folder / "results.json") == {"old": 1}
        assert [file.name for file in folder.iterdir()] == ["results.json"]


class TestIdentity:
    def test_is_that_of_local_files(self, folder, tmp_path):
        for root in (folder, epath.Path(tmp_path)):
            for name in ("a.jsonl", "b.jsonl", "c.txt", "deep/d.jsonl"):
                artifacts.write_text(root / name, name)
        for part in ("a.jsonl", "*.jsonl", "dee*/*.jsonl", "", "none*.jsonl"):
            remote, local = data_identity(str(folder / part)), data_identity(str(tmp_path / part))
            assert remote.replace(str(folder), "") == local.replace(str(tmp_path), "")

    def test_of_many_levels_is_refused(self, folder):
        with pytest.raises(InputError, match="local files only"):
            data_identity(f"{folder}/**/*.jsonl")


def make_rows():
    return [
        PoolRow(n, f"say {n}", "", str(n), f"source {n % 2}", {"number": n}, f"row {n}") for n in range(9)
    ]


class TestPool:
    SETTINGS = TokenizeSettings(prompt="plain", boundary="separate", max_length=40)

    def test_reads_as_a_local_one(self, folder, tmp_path, tiny_checkpoint):
        tokenizer = hf.load_tokenizer(tiny_checkpoint)
        for path in (folder / "0123", tmp_path / "0123"):
            prepare(path, make_rows, tokenizer, self.SETTINGS)
        remote, local = PreparedPool(folder / "0123"), PreparedPool(tmp_path / "0123")
        assert remote.fingerprint == local.fingerprint == "0123"
        assert remote.manifest == local.manifest
        assert list(remote.originals(range(9))) == list(local.originals(range(9)))
        for ours, theirs in zip(remote.read(range(9)), local.read(range(9)), strict=True):
            assert np.array_equal(ours, theirs)
        for name in ("lengths", "prompt_lengths", "ids", "source_codes"):
            assert np.array_equal(getattr(remote, name), getattr(local, name))

    def test_rows_are_copied_when_the_first_is_read(self, folder, tiny_checkpoint, monkeypatch):
        prepare(folder, make_rows, hf.load_tokenizer(tiny_checkpoint), self.SETTINGS)
        copy, copied = artifacts._copy, []
        monkeypatch.setattr(artifacts, "_copy", lambda *files: (copied.append(files[0].name), copy(*files)))
        pool = PreparedPool(folder)
        assert "lengths.npy" in copied
        assert not [name for name in copied if "array_record" in name]
        assert len(pool.read([3])) == 1
        assert [name for name in copied if "array_record" in name]

    def test_is_complete_or_not_there(self, folder, store, tiny_checkpoint):
        tokenizer = hf.load_tokenizer(tiny_checkpoint)
        store.refusal = 403
        with pytest.raises(OSError, match="quota"):
            prepare(folder, make_rows, tokenizer, self.SETTINGS)
        store.refusal = 0
        assert not folder.exists()
        artifacts.write_text(folder / "dataset" / "stale", "half of it")
        before = len(store.changes)
        prepare(folder, make_rows, tokenizer, self.SETTINGS)
        changes = store.changes[before:]
        assert changes[0] == ("DELETE", f"{within(folder)}/dataset/stale")
        assert changes[-1] == ("PUT", f"{within(folder)}/manifest.json")


class TestTrajectoryStore:
    IDS = np.arange(5, dtype=np.uint64)

    def test_grows(self, folder):
        written = TrajectoryStore.create(folder / "t.zarr", self.IDS, {})
        reader = TrajectoryStore(folder / "t.zarr")
        for step in (3, 6):
            written.append(step, np.full(5, step, np.float32))
            assert reader.steps()[-1] == step
        assert TrajectoryStore.create(folder / "t.zarr", self.IDS, {}).read().tolist() == [[3, 6]] * 5

    def test_on_a_full_store(self, folder, store):
        store.refusal = 403
        with pytest.raises(OSError, match=r"t\.zarr: the store could not be made .*quota"):
            TrajectoryStore.create(folder / "t.zarr", self.IDS, {})
        store.refusal = 0
        written = TrajectoryStore.create(folder / "t.zarr", self.IDS, {})
        store.refusal = 403
        with pytest.raises(OSError, match=r"column of step 3 was not written .*quota"):
            written.append(3, np.zeros(5, np.float32))
        store.refusal = 0
        assert TrajectoryStore(folder / "t.zarr").steps().tolist() == []


class Stop(Exception):
    """Stands for a kill."""


def config():
    made = small_config("gs://bucket/base")
    made.pool.path = "gs://bucket/pool/*.jsonl"
    made.proxy.save_params = True
    made.evaluation.limit = 2
    made.selection.budget = 30
    for model in (made.proxy, made.target):
        # Of one shape and length, so that proxy and target share what is compiled.
        model.train.update(steps=9, checkpoint_every=3, log_every=1, pack=False)
    made.selection.runs.random.train_target = False
    return made


@pytest.fixture(scope="module")
def runs(store, tiny_checkpoint, tmp_path_factory, one_device_mesh):
    """A local run's folder, and an interrupted one on the store; both of a pool and a model there."""
    artifacts.publish(tiny_checkpoint, "gs://bucket/base")
    for part in range(2):
        rows = ({"instruction": f"say {n}", "output": str(n)} for n in range(part * 60, part * 60 + 60))
        artifacts.write_text(f"gs://bucket/pool/{part}.jsonl", "\n".join(map(json.dumps, rows)))

    local = tmp_path_factory.mktemp("local")
    options = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {option: jax.config.values[option] for option in options}
    save = Checkpoints.save

    def save_and_stop(checkpoints, step, state):
        save(checkpoints, step, state)
        if step == 6:
            checkpoints.wait()
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "make_mesh", lambda *_: one_device_mesh)
        for option, value in options.items():
            jax.config.update(option, value)
        try:
            pipeline.run_pipeline(config(), local)
            patch.setattr(Checkpoints, "save", save_and_stop)
            with pytest.raises(Stop):
                pipeline.run_pipeline(config(), RUN)
            patch.setattr(Checkpoints, "save", save)
            damage(store, "run/proxy/checkpoints/6/")
            pipeline.run_pipeline(config(), RUN)
            finished = len(store.changes)
            pipeline.run_pipeline(config(), RUN)
        finally:
            for option, value in before.items():
                jax.config.update(option, value)
    return epath.Path(local), epath.Path(RUN), {name for _, name in store.changes[finished:]}


def damage(store, prefix):
    """Change bytes of the largest object of a checkpoint."""
    name = max((n for n in store.objects if n.startswith(prefix)), key=lambda n: len(store.objects[n][0]))
    data = store.objects[name][0]
    store.put(name, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def results(workdir):
    found = artifacts.read_json(workdir / "results.json")
    found.pop("timing")
    return found


def test_results_are_those_of_a_local_run(runs):
    local, remote, _ = runs
    assert results(remote) == results(local)


@pytest.mark.parametrize(
    "artifact",
    [
        "selection/s2l/indices.npy",
        "selection/s2l/subset.jsonl",
        "selection/random/subset.jsonl",
        "target/s2l/hf/model.safetensors",
        "target/s2l/hf/tokenizer.json",
        "proxy/losses.npy",
        "proxy/snapshots/6/model.safetensors",
        "proxy/snapshots/6/snapshot.json",
        "evaluation/s2l/synthetic/predictions.jsonl",
    ],
)
def test_artifacts_have_the_bytes_of_a_local_run(runs, artifact):
    local, remote, _ = runs
    assert (remote / artifact).read_bytes() == (local / artifact).read_bytes()


def test_the_workdir_holds_the_same_files(runs):
    local, remote, _ = runs

    def files(workdir):
        names = (file.relative_to(workdir).as_posix() for file in artifacts.files_under(workdir))
        kept = ("checkpoints", "tensorboard", ".zarr")  # their files have names of the moment
        return {name for name in names if not any(part in name for part in kept)}

    assert files(remote) == files(local)
    assert TrajectoryStore(remote / "trajectories.zarr").steps().tolist() == [3, 6, 9]


def test_snapshots_on_the_store_are_swept_again(runs, folder, one_device_mesh, monkeypatch):
    monkeypatch.setattr(pipeline, "make_mesh", lambda *_: one_device_mesh)
    again = config()
    again.proxy.save_params, again.trajectories.snapshots = False, f"{RUN}/proxy/snapshots"
    again.trajectories.slice_ids = f"{folder}/ids.txt"
    whole = TrajectoryStore(runs[1] / "trajectories.zarr")
    artifacts.write_text(f"{folder}/ids.txt", "\n".join(map(str, whole.ids()[30:90])))
    pipeline.run_pipeline(again, folder / "again", stages=["trajectories"])
    swept = TrajectoryStore(folder / "again" / "trajectories.zarr")
    assert swept.steps().tolist() == [3, 6, 9]
    np.testing.assert_allclose(swept.read(), whole.read()[30:90], atol=1e-4)


def test_training_losses_on_the_store_survive_a_stop(runs, folder, one_device_mesh, monkeypatch):
    monkeypatch.setattr(pipeline, "make_mesh", lambda *_: one_device_mesh)
    free = config()
    free.proxy.save_params, free.trajectories.source, free.proxy.train.steps = False, "train", 16
    save = Checkpoints.save

    def save_and_stop(checkpoints, step, state):
        save(checkpoints, step, state)
        if step == 12:
            checkpoints.wait()
            raise Stop

    pipeline.run_pipeline(free, folder / "unbroken", stages=["proxy"])
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            pipeline.run_pipeline(free, folder / "stopped", stages=["proxy"])
    pipeline.run_pipeline(free, folder / "stopped", stages=["proxy"])
    ours, theirs = (TrajectoryStore(folder / n / "trajectories.zarr") for n in ("stopped", "unbroken"))
    assert ours.steps().tolist() == [15]  # 120 rows in batches of 8
    assert ours.read().tobytes() == theirs.read().tobytes()


def test_a_broken_checkpoint_is_put_aside(runs):
    _, remote, _ = runs
    (aside,) = (remote / "proxy" / "broken_checkpoints").iterdir()
    assert aside.name.startswith("6-")
    assert len(artifacts.files_under(aside)) > 5
    steps = {int(entry.name) for entry in (remote / "proxy" / "checkpoints").iterdir()}
    assert steps == {6, 9}


def test_a_finished_run_is_not_run_again(runs):
    own = {name for name in runs[2] if not name.startswith("run/report/figures/")}
    assert own == {"run/config.json", "run/results.json", "run/report/index.html", "run/owner.json"}
    assert not (runs[1] / "owner.json").exists()


def test_tensorboard_files_of_both_sittings_are_there(runs):
    files = sorted((runs[1] / "proxy" / "tensorboard").iterdir())
    assert [file.suffix for file in files] == [".0", ".3"]
    points = dict(curve(runs[1] / "proxy", "loss"))
    losses = artifacts.read_npy(runs[0] / "proxy" / "losses.npy")
    assert points == dict(enumerate(losses.tolist(), start=1))


@pytest.mark.parametrize("workdir", ["s3://bucket/run", "hdfs://bucket/run"])
def test_other_stores_are_refused(workdir):
    config = small_config("gs://bucket/base")
    with pytest.raises(InputError, match=f"--workdir={workdir}: a local folder or gs://"):
        pipeline.run_pipeline(config, workdir)
