"""`proxy.per_seed`: a replicate is what a workdir of its seed is, at once, added later or interrupted."""

import re

import numpy as np
import pytest

from s2l_jax.config import run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.store import TrajectoryStore
from tests.support.pipeline_kills import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

REPLICATES = {"seeds": (0, 1), "proxy.per_seed": True}
INPUTS = ("trajectories.zarr", "seed_1/trajectories.zarr")


@pytest.fixture(scope="module")
def make_config(tiny_checkpoint):
    def make(**changes):
        config = small_config(str(tiny_checkpoint))
        config.pool.limit, config.proxy.train.steps, config.target.train.steps = 120, 6, 2
        config.trajectories.slice_count = 100  # drawn by the seed, too
        config.selection.runs.random.train_target = False
        config.evaluation.path = ""
        config.update_from_flattened_dict(changes)
        return config

    return make


@pytest.fixture(scope="module")
def at_once(make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("at_once") / "run"
    return workdir, run_pipeline(make_config(**REPLICATES), workdir)


@pytest.fixture(scope="module")
def alone(make_config, tmp_path_factory):
    """A workdir with the other seed, and no replicates."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run_pipeline(make_config(seed=1), workdir)
    return workdir


def content(workdir):
    """Bytes of subsets and weights, and losses, steps and ids of trajectories."""
    files = [*workdir.rglob("indices.npy"), *workdir.rglob("model.safetensors")]
    found = {str(file.relative_to(workdir)): file.read_bytes() for file in files}
    for store in workdir.rglob("trajectories.zarr"):
        loaded = load_trajectories(store)
        found[str(store.relative_to(workdir))] = (loaded.digest, loaded.ids.tobytes())
    return found


def test_a_replicate_is_what_a_workdir_of_its_seed_is(at_once, alone):
    found, expected = content(at_once[0]), content(alone)
    for name, of_alone in expected.items():
        replicate = re.sub("^(selection|target)/([a-z0-9]+)", r"\1/\2-seed1", name)
        assert found[f"seed_1/{name}" if name == "trajectories.zarr" else replicate] == of_alone
    assert len(found) == 2 * len(expected)


def test_each_seed_has_its_own_losses_and_they_are_in_the_results(at_once):
    workdir, results = at_once
    first, other = (load_trajectories(workdir / store) for store in INPUTS)
    assert first.digest != other.digest
    assert first.ids.tolist() != other.ids.tolist()
    assert results["trajectories"]["seed"] == 0
    assert results["proxies"]["seed_1"]["trajectories"]["seed"] == 1
    assert results["proxy"]["final_loss"] != results["proxies"]["seed_1"]["proxy"]["final_loss"]
    assert "own proxy, of seed 0." in (workdir / "report" / "index.html").read_text()


def test_each_replicate_is_charged_its_own_proxy(at_once):
    from s2l_jax.report.runs import selection_seconds

    results = at_once[1]
    results = results | {"timing": {"proxy": 1.0, "seed_1/proxy": 10.0, "selection/s2l-seed1": 100.0}}
    assert selection_seconds(results, "s2l") == 1
    assert selection_seconds(results, "s2l-seed1") == 110


def test_seeds_added_later_are_what_they_are_at_once(make_config, at_once, tmp_path):
    run_pipeline(make_config(), tmp_path / "run")
    before = content(tmp_path / "run")
    run_pipeline(make_config(**REPLICATES), tmp_path / "run")
    after = content(tmp_path / "run")
    assert {name: after[name] for name in before} == before
    assert after == content(at_once[0])


def test_an_interrupted_proxy_of_another_seed_goes_on(make_config, at_once, tmp_path, monkeypatch):
    append = TrajectoryStore.append

    def interrupted(store, step, column):
        if "seed_1" in str(store._path) and step > 3:
            raise KeyboardInterrupt
        append(store, step, column)

    config = make_config(**REPLICATES)
    with monkeypatch.context() as patch:
        patch.setattr(TrajectoryStore, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(config, tmp_path / "run")
    states = {part.name: part.state for part in plan_pipeline(config, tmp_path / "run").parts}
    assert (states["proxy"], states["seed_1/proxy"]) == ("there", "goes on")
    run_pipeline(config, tmp_path / "run")
    assert content(tmp_path / "run") == content(at_once[0])


def test_other_settings_are_refused_before_any_work(make_config, at_once):
    changed = plan_pipeline(make_config(**REPLICATES | {"proxy.train.learning_rate": 0.5}), at_once[0])
    refused = {part.name: part.differences for part in changed.parts if part.state == "refused"}
    difference = ("proxy.train.learning_rate: 0.001 before, 0.5 now",)
    assert refused == {"proxy": difference, "seed_1/proxy": difference}
    shared = plan_pipeline(make_config(seeds=(0, 1)), at_once[0])
    refused = {part.name: part.differences for part in shared.parts if part.state == "refused"}
    assert refused == {"selection/s2l-seed1": ("proxy.per_seed: True before, absent now",)}


def test_what_does_not_go_by_the_seed_is_made_once(make_config, tmp_path):
    config = make_config(**REPLICATES)
    config.selection.runs.states = run(method="facility_location")
    config.selection.runs.less = run(method="less")

    def parts(config):
        return [part.name for part in plan_pipeline(config, tmp_path / "none").parts]

    folders = {name.rpartition("/")[0] or name for name in parts(config)}
    assert folders >= {"proxy", "seed_1", "hidden_states", "gradients", "selection", "target"}
    assert [name for name in parts(config) if name.startswith("seed_")] == [
        "seed_1/proxy",
        "seed_1/gradients",
    ]
    config.target.init = "random"
    assert "seed_1/hidden_states/target-mean" in parts(config)
    config.proxy.per_seed = False
    assert not [name for name in parts(config) if name.startswith("seed_")]


@pytest.mark.parametrize("field", ["path", "snapshots"])
def test_trajectories_of_one_proxy_are_refused(make_config, field, tmp_path):
    np.save(tmp_path / "losses.npy", np.ones((120, 2), np.float32))
    changes = {f"trajectories.{field}": str(tmp_path / "losses.npy"), "trajectories.slice_count": 0}
    with pytest.raises(InputError, match=rf"proxy.per_seed=True .*trajectories.{field}="):
        run_pipeline(make_config(**REPLICATES, **changes), tmp_path / "run")


def test_seeds_that_repeat_are_refused(make_config, tmp_path):
    with pytest.raises(InputError, match=r"seeds=\(1, 1\): must be different whole numbers"):
        run_pipeline(make_config(seeds=(1, 1)), tmp_path)
