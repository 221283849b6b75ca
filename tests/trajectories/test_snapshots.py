"""Parameter snapshots kept at each sweep, and sweeping them again in another workdir."""

import json
import shutil

import numpy as np
import pytest

from s2l_jax.config import run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.trajectories import snapshots as trajectory_snapshots
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.snapshots import find_snapshots, load_snapshot
from tests.support.pipeline_kills import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

STEPS = [0, 3, 6, 9]


@pytest.fixture(scope="module")
def config_of(tiny_checkpoint):
    def make(snapshots="", **trajectories):
        config = small_config(str(tiny_checkpoint))
        config.mesh.data, config.mesh.fsdp = 4, 2
        config.evaluation.path = ""
        config.trajectories.step_zero = True
        config.trajectories.update(trajectories, snapshots=str(snapshots))
        del config.selection.runs["random"]
        config.selection.runs.s2l = run(method="s2l", train_target=False)
        if not snapshots:
            config.proxy.save_params = True
        return config

    return make


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def kept(config_of, tmp_path_factory):
    """A workdir that keeps snapshots; its run was stopped within the snapshot of step 6."""
    workdir = tmp_path_factory.mktemp("kept")
    real = trajectory_snapshots.save_snapshot

    def stopping(folder, *args, **options):
        if folder.name == "6":
            (folder).mkdir(parents=True)
            (folder / "model.safetensors").write_bytes(b"a part of one")
            raise Stopped
        real(folder, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectory_snapshots, "save_snapshot", stopping)
        with pytest.raises(Stopped):
            run_pipeline(config_of(), workdir)
    assert list(find_snapshots(workdir / "proxy" / "snapshots")) == [0, 3]
    results = run_pipeline(config_of(), workdir)
    assert results["trajectories"]["source"] == "sweep"
    return workdir


@pytest.fixture(scope="module")
def snapshots(kept):
    return kept / "proxy" / "snapshots"


def losses_of(workdir):
    return load_trajectories(workdir / "trajectories.zarr")


def test_a_snapshot_is_a_checkpoint_that_loads(kept, snapshots, tiny_checkpoint, one_device_mesh):
    from s2l_jax.models.hf import load_tokenizer
    from s2l_jax.models.parameters import flatten_params, model_params
    from s2l_jax.parallel.placement import load_model

    assert sorted(int(f.name) for f in snapshots.iterdir()) == STEPS
    first, base = (
        flatten_params(model_params(load_model(str(path), one_device_mesh)))
        for path in (snapshots / "0", tiny_checkpoint)
    )
    assert all(np.asarray(first[path]).tobytes() == np.asarray(base[path]).tobytes() for path in base)
    last = flatten_params(model_params(load_model(str(snapshots / "9"), one_device_mesh)))
    assert any(np.asarray(last[path]).tobytes() != np.asarray(base[path]).tobytes() for path in base)
    assert len(load_tokenizer(snapshots / "9")) == len(load_tokenizer(tiny_checkpoint))


@pytest.fixture(scope="module")
def again(config_of, snapshots, tmp_path_factory):
    """The same rows swept again: the stages, then their results."""
    workdir = tmp_path_factory.mktemp("again")
    config = config_of(snapshots)
    config.proxy.checkpoint, config.proxy.tokenizer = "", config.proxy.checkpoint
    run_pipeline(config, workdir, stages=["pool", "trajectories"])
    assert not (workdir / "selection").exists()
    return workdir, run_pipeline(config, workdir)


def test_the_same_rows_give_the_bytes_of_the_live_sweep(kept, again):
    ours, live = losses_of(again[0]), losses_of(kept)
    assert ours.steps.tolist() == live.steps.tolist() == STEPS
    assert np.array_equal(ours.ids, live.ids)
    assert ours.losses.tobytes() == live.losses.tobytes()


def test_results_say_what_was_done(kept, again):
    workdir, results = again
    before = json.loads((kept / "results.json").read_text())
    assert results["trajectories"]["refreshes"] == before["trajectories"]["refreshes"]
    assert results["trajectories"]["sweep_flops"] == before["proxy"]["sweep_flops"]
    assert "proxy" not in results
    assert {"pool", "trajectories", "selection/s2l"} <= set(results["timing"])
    ours, theirs = ((f / "selection" / "s2l" / "indices.npy").read_bytes() for f in (workdir, kept))
    assert ours == theirs
    assert not (workdir / "proxy").exists()


def test_a_finished_sweep_is_not_made_again(again, config_of, snapshots, monkeypatch):
    loading = "s2l_jax.pipeline.stages.saved_parameters.load_snapshot"
    monkeypatch.setattr(loading, lambda *_: pytest.fail("loaded"))
    run_pipeline(config_of(snapshots), again[0])
    with pytest.raises(InputError, match=r"dtype: 'float32' before, 'bfloat16' now"):
        run_pipeline(config_of(snapshots, dtype="bfloat16"), again[0])


def test_other_rows_dtype_and_steps(config_of, snapshots, kept, tmp_path):
    config = config_of(
        snapshots, slice_count=50, dtype="bfloat16", cadence="list", steps=(9, 3), step_zero=False
    )
    results = run_pipeline(config, tmp_path, stages=["trajectories", "selection"])
    assert results["trajectories"]["steps"] == [3, 9]
    assert results["trajectories"]["slice_of"] == 240
    ours, live = losses_of(tmp_path), losses_of(kept)
    rows = np.flatnonzero(np.isin(live.ids, ours.ids))
    differences = np.abs(ours.losses - live.losses[rows][:, [1, 3]])
    assert 0 < differences.max() < 0.05


def test_a_sweep_that_stopped_goes_on(config_of, snapshots, kept, tmp_path, monkeypatch):
    loaded = []

    def stopping(folder, mesh):
        loaded.append(folder.name)
        if loaded == ["0", "3", "6"]:
            raise Stopped
        return load_snapshot(folder, mesh)

    monkeypatch.setattr("s2l_jax.pipeline.stages.saved_parameters.load_snapshot", stopping)
    with pytest.raises(Stopped):
        run_pipeline(config_of(snapshots), tmp_path, stages=["trajectories"])
    with pytest.raises(InputError, match="needs trajectories"):
        run_pipeline(config_of(snapshots), tmp_path, stages=["selection"])
    run_pipeline(config_of(snapshots), tmp_path, stages=["trajectories"])
    assert loaded == ["0", "3", "6", "6", "9"]
    assert losses_of(tmp_path).losses.tobytes() == losses_of(kept).losses.tobytes()


class TestRefusals:
    def test_a_proxy_of_its_own(self, config_of, snapshots, kept):
        with pytest.raises(InputError, match="has a proxy of its own"):
            run_pipeline(config_of(snapshots), kept)

    def test_to_keep_what_was_not_kept(self, config_of, kept):
        config = config_of()
        config.proxy.save_params = False
        with pytest.raises(InputError, match="save_params: True before, False now"):
            run_pipeline(config, kept)

    def test_no_snapshots(self, config_of, kept, tmp_path):
        with pytest.raises(InputError, match=r"no snapshot in .*proxy\.save_params=True"):
            run_pipeline(config_of(kept / "pool"), tmp_path)
        with pytest.raises(InputError, match=r"trajectories\.snapshots='.*' does not exist"):
            run_pipeline(config_of(kept / "nowhere"), tmp_path)

    def test_a_step_that_is_not_there(self, config_of, snapshots, tmp_path):
        with pytest.raises(InputError, match=r"no snapshot of step 4; there are 0, 3, 6, 9"):
            run_pipeline(config_of(snapshots, cadence="list", steps=(3, 4)), tmp_path)

    def test_other_tokens(self, config_of, snapshots, tmp_path):
        config = config_of(snapshots)
        config.tokenize.prompt = "radiology"
        with pytest.raises(InputError, match="trained with another tokeniser or other tokenize"):
            run_pipeline(config, tmp_path)

    @pytest.mark.parametrize("damage", ["changed", "gone"])
    def test_damage(self, damage, config_of, snapshots, tmp_path):
        shutil.copytree(snapshots, tmp_path / "copy")
        file = tmp_path / "copy" / "3" / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data) if damage == "changed" else file.unlink()
        with pytest.raises(InputError, match=r"model\.safetensors is (not as it was written|gone)"):
            run_pipeline(config_of(tmp_path / "copy"), tmp_path / "run", stages=["trajectories"])
