"""A disk that fills up stops a run with OSError, which the launcher knows, whatever a library raises."""

import resource
import types

import numpy as np
import pytest
from etils import epath

from s2l_jax import artifacts
from s2l_jax.data.batching import Size
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prepared import TokenizeSettings, prepare
from s2l_jax.models import hf
from s2l_jax.models.parameters import model_params
from s2l_jax.selection import Selection, SelectionInputs, select, write_subset
from s2l_jax.training.boards import TensorBoard
from s2l_jax.training.hooks import FinishedStep
from s2l_jax.training.metrics import Metrics
from s2l_jax.trajectories.store import TrajectoryStore

IDS = np.arange(5000, dtype=np.uint64)


class Disk:
    """From `fill` on no file grows past 4 kB, which fails as a full disk does."""

    def __init__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, self.limits[1]))

    def make_room(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.make_room()


def test_a_trajectory_store_that_cannot_be_made(tmp_path, disk):
    path = tmp_path / "t.zarr"
    disk.fill()
    with pytest.raises(OSError, match=r"t\.zarr: the store could not be made"):
        TrajectoryStore.create(path, IDS, {})
    disk.make_room()
    assert TrajectoryStore.create(path, IDS, {}).read().shape == (5000, 0)


def test_a_column_that_cannot_be_written_does_not_count(tmp_path, disk):
    store = TrajectoryStore.create(tmp_path / "t.zarr", IDS, {})
    store.append(3, np.ones(5000, np.float32))
    disk.fill()
    with pytest.raises(OSError, match=r"t\.zarr: the column of step 6 was not written"):
        store.append(6, np.zeros(5000, np.float32))
    disk.make_room()
    store = TrajectoryStore.create(tmp_path / "t.zarr", IDS, {})
    assert store.steps().tolist() == [3]
    store.append(6, np.zeros(5000, np.float32))
    assert store.read().sum(axis=0).tolist() == [5000, 0]


def test_a_pool_that_cannot_be_written_leaves_nothing(tmp_path, disk):
    rng = np.random.default_rng(0)
    rows = [
        PoolRow(n, "say", "", "x", "", {"noise": rng.bytes(200).hex()}, f"row {n}")  # does not compress away
        for n in range(2000)
    ]
    settings = TokenizeSettings("plain", "separate", 40)
    disk.fill()
    with pytest.raises(OSError, match="the tokenised pool was not written"):
        prepare(tmp_path / "pool", lambda: rows, None, settings)
    disk.make_room()
    assert not (tmp_path / "pool").exists()
    prepare(tmp_path / "pool", lambda: rows, None, settings)


def test_tensorboard_files_that_cannot_be_written(tmp_path, tiny_checkpoint, disk):
    path = epath.Path(tmp_path)
    board = TensorBoard(path, 0)
    metrics = Metrics(path, hf.load_config(tiny_checkpoint), "test", 0, 1000, 1, boards=[board])

    def finished(step):
        batch = types.SimpleNamespace(step=step, size=Size(8, 8, 8))
        return FinishedStep(batch, loss=1.0, grad_norm=1.0, learning_rate=1.0)

    metrics.after_step(finished(0))
    disk.fill()
    with pytest.raises(OSError, match=r"tensorboard: TensorBoard's files were not written .*File too large"):  # noqa: PT012
        for step in range(2, 1000):
            metrics.after_step(finished(step))
    with pytest.raises(OSError, match="File too large"):
        board.close()


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, disk):
    path = tmp_path / "deep" / "file"
    artifacts.write_text(path, "old")
    disk.fill()
    with pytest.raises(OSError, match="File too large"):
        artifacts.write_text(path, "new" * 10_000)
    assert path.read_text() == "old"
    assert [f.name for f in path.parent.iterdir()] == ["file"]


def test_a_model_that_cannot_be_written_is_named(tmp_path, tiny_checkpoint, one_device_mesh, disk):
    """Whichever of safetensors, tokenizers and this package meets the full disk."""
    from s2l_jax.parallel.placement import load_model

    config, tokenizer = hf.load_config(tiny_checkpoint), hf.load_tokenizer(tiny_checkpoint)
    params = model_params(load_model(str(tiny_checkpoint), one_device_mesh))
    disk.fill()
    with pytest.raises(OSError, match=f"{tmp_path}/model.*(File too large|written)"):
        hf.save_model(tmp_path / "model", params, config, {}, dtype=np.float32, tokenizer=tokenizer)
    disk.make_room()


def test_a_tokeniser_that_cannot_be_written_is_named(tmp_path, tiny_checkpoint, disk):
    tokenizer = hf.load_tokenizer(tiny_checkpoint)
    disk.fill()
    with pytest.raises(OSError, match=f"{tmp_path}/model"), artifacts.failing_as_oserror(tmp_path / "model"):
        tokenizer.save_pretrained(tmp_path / "model")


def test_a_file_that_cannot_be_written_is_named(tmp_path, disk):
    disk.fill()
    with pytest.raises(OSError, match=r"File too large.*results\.json"):
        artifacts.write_text(tmp_path / "results.json", "1" * 10_000)


def test_a_selection_that_cannot_be_written_is_not_complete(tmp_path, disk):
    selection = select(SelectionInputs(ids=np.random.default_rng(0).permutation(9000)), 20, method="random")
    disk.fill()
    with pytest.raises(OSError, match="File too large"):
        selection.save(tmp_path)
    with pytest.raises(OSError, match="File too large"):
        write_subset(tmp_path / "subset.jsonl", ({"text": "x" * 100} for _ in range(99)))
    assert {f.name for f in tmp_path.iterdir()} == {"indices.npy", "centroids.npy"}
    disk.make_room()
    selection.save(tmp_path)
    assert np.array_equal(Selection.load(tmp_path).indices, selection.indices)
