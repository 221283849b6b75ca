"""A run killed in every stage and started again ends as an unbroken one; workdirs keep their meaning."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from s2l_jax.config import run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.trajectories.load import load_trajectories
from tests.support.paths import REPOSITORY, SUPPORT
from tests.support.pipeline_kills import small_config

pytestmark = pytest.mark.long

DRIVER = SUPPORT / "pipeline_kills.py"
KILLS = [
    "prompt_lengths.npy",  # pool: tokenised, not yet complete
    "column 6",  # proxy: swept, the column not yet stored
    "checkpoint proxy 8",  # proxy: a checkpoint under way
    "selection/s2l/summary",
    "checkpoint random 4",
    "target/random/hf",  # target: trained, not yet exported
    "evaluation/s2l/synthetic/predictions",
    "/results.json",
    "index.html",
]


def drive(workdir, checkpoint, cache, labels=()):
    env = dict(os.environ) | {
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(DRIVER), str(workdir), str(checkpoint), *labels]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    drive(folder / "unbroken", tiny_checkpoint, folder / "cache")
    said = drive(folder / "killed", tiny_checkpoint, folder / "cache", KILLS)
    assert all(f"killed at {label}" in said for label in KILLS)
    return folder


def results(workdir):
    found = json.loads((workdir / "results.json").read_text())
    found.pop("timing")
    return found


def test_results_of_a_killed_run_equal_those_of_an_unbroken_one(runs):
    assert results(runs / "killed") == results(runs / "unbroken")


@pytest.mark.parametrize(
    "artifact",
    [
        "selection/s2l/indices.npy",
        "selection/s2l/subset.jsonl",
        "selection/random/indices.npy",
        "target/s2l/hf/model.safetensors",
        "target/random/hf/model.safetensors",
        "evaluation/s2l/synthetic/predictions.jsonl",
    ],
)
def test_artifacts_of_a_killed_run_have_the_same_bytes(runs, artifact):
    assert (runs / "killed" / artifact).read_bytes() == (runs / "unbroken" / artifact).read_bytes()


@pytest.fixture(scope="module")
def make_config(tiny_checkpoint):
    def make():
        config = small_config(str(tiny_checkpoint))
        config.mesh.data = -1
        return config

    return make


def stamps(workdir):
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("stage.json")}


def test_a_finished_run_is_not_run_again_and_new_names_are_added(runs, make_config):
    workdir = runs / "unbroken"
    before = stamps(workdir)
    run_pipeline(make_config(), workdir, name="kills")
    assert stamps(workdir) == before
    config = make_config()
    config.selection.runs["s2l_k2"] = run(method="s2l", num_clusters=2, train_target=False)
    found = run_pipeline(config, workdir, name="kills")
    after = stamps(workdir)
    assert {p: after[p] for p in before} == before
    assert [p.parent.name for p in set(after) - set(before)] == ["s2l_k2"]
    assert found["selections"]["s2l_k2"]["options"]["num_clusters"] == 2
    assert set(found["selections"]) == {"s2l", "random", "s2l_k2"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c.selection.runs.s2l.update(budget=30), "budget: 60 before, 30 now"),
        (lambda c: c.proxy.train.update(learning_rate=1e-4), "learning_rate: 0.001 before"),
        (lambda c: c.pool.update(limit=100), "limit: 240 before, 100 now"),
        (lambda c: c.tokenize.update(max_length=64), "max_length: 96 before, 64 now"),
        (lambda c: c.trajectories.update(every=2), "every: 3 before, 2 now"),
        (lambda c: c.target.train.update(steps=7), "steps: 6 before, 7 now"),
        (lambda c: c.evaluation.update(limit=5), "limit: 12 before, 5 now"),
    ],
)
def test_other_settings_under_a_name_that_exists_are_refused(runs, make_config, change, what):
    workdir = runs / "unbroken"
    before = stamps(workdir)
    config = make_config()
    change(config)
    with pytest.raises(InputError, match="made with other settings") as refused:
        run_pipeline(config, workdir, name="kills")
    assert what in str(refused.value)
    assert "--workdir" in str(refused.value)
    assert stamps(workdir) == before


def test_fields_that_only_decide_how_may_change_between_sittings(runs, make_config):
    workdir = runs / "unbroken"
    before = stamps(workdir)
    config = make_config()
    config.proxy.train.checkpoint_every = 5
    config.trajectories.batch_tokens = 4096
    config.evaluation.batch_size = 3
    run_pipeline(config, workdir, name="kills")
    assert stamps(workdir) == before


def test_a_refused_command_leaves_config_json_as_it_was(runs, make_config):
    workdir = runs / "unbroken"
    before = (workdir / "config.json").read_bytes()
    config = make_config()
    config.selection.runs.s2l.budget = 30
    with pytest.raises(InputError, match="made with other settings"):
        run_pipeline(config, workdir, name="kills")
    assert (workdir / "config.json").read_bytes() == before


def test_an_unfinished_proxys_columns_are_not_selected_from(runs, make_config, tmp_path):
    columns = runs / "unbroken" / "trajectories.zarr"
    shutil.copytree(columns, tmp_path / "trajectories.zarr")
    with pytest.raises(InputError, match="needs trajectories"):
        run_pipeline(make_config(), tmp_path, stages=["selection"])
    assert not (tmp_path / "selection" / "s2l" / "summary.json").exists()


def test_a_selection_is_tied_to_its_trajectories(runs, make_config, tmp_path):
    columns = runs / "unbroken" / "trajectories.zarr"
    losses = load_trajectories(columns).losses
    for name, array in (("one", losses), ("two", losses[:, ::-1])):
        np.save(tmp_path / f"{name}.npy", array)
    config = make_config()
    config.trajectories.path = str(tmp_path / "one.npy")
    run_pipeline(config, tmp_path / "run", stages=["selection"])
    config.trajectories.path = str(tmp_path / "two.npy")
    with pytest.raises(InputError, match="made with other settings"):
        run_pipeline(config, tmp_path / "run", stages=["selection"])


def test_a_subset_that_was_made_anew_is_not_paired_with_what_the_old_one_gave(runs, make_config, tmp_path):
    """Neither with its target, where that stage is not asked for, nor with that target's answers."""
    workdir = shutil.copytree(runs / "unbroken", tmp_path / "run")
    config = make_config()
    config.selection.runs.s2l.num_clusters = 2
    shutil.rmtree(workdir / "selection" / "s2l")
    run_pipeline(config, workdir, stages=["selection"], name="kills", parts=["selection/s2l"])
    with pytest.raises(InputError, match=r"target/s2l was made with other settings:\s+selection\.sha256"):
        run_pipeline(config, workdir, stages=["evaluation", "report"], name="kills")
    shutil.rmtree(workdir / "target" / "s2l")
    with pytest.raises(InputError, match=r"evaluation/s2l/synthetic .* settings:\s+target\.export_sha256"):
        run_pipeline(config, workdir, name="kills")
    shutil.rmtree(workdir / "evaluation" / "s2l")
    run_pipeline(config, workdir, name="kills")
