"""The plan of a run: what is there, what will be made and why, what is refused; nothing is touched."""

import subprocess
import sys

import pytest

from s2l_jax.config import run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.plan import GOES_ON, MADE, NOT_ASKED, REFUSED, THERE
from s2l_jax.pipeline.run import plan_pipeline
from tests.support.paths import REPOSITORY
from tests.support.pipeline_kills import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture(scope="module")
def make_config(tiny_checkpoint):
    def make():
        config = small_config(str(tiny_checkpoint))
        config.mesh.data = -1
        config.proxy.train.steps = 3
        config.target.train.steps = 2
        config.evaluation.limit = 8
        return config

    return make


@pytest.fixture(scope="module")
def done(make_config, tmp_path_factory):
    """A workdir whose selections are made, and one of whose targets was begun."""
    workdir = tmp_path_factory.mktemp("plan")
    run_pipeline(make_config(), workdir, stages=["pool", "proxy", "trajectories", "selection"])
    (workdir / "target" / "random").mkdir(parents=True)
    return workdir


def states(plan):
    return {part.name: part.state for part in plan.parts}


def files(workdir):
    return {file: file.stat().st_mtime_ns for file in workdir.rglob("*")}


def test_of_an_empty_workdir(make_config, tmp_path):
    config = make_config()
    config.clustering.compare = (2, 5)
    plan = plan_pipeline(config, tmp_path / "none")
    assert set(states(plan).values()) == {MADE}
    assert list(states(plan)) == [
        "pool", "proxy", "cluster_counts/2", "cluster_counts/5", "selection/random", "selection/s2l",
        "target/random", "target/s2l", "evaluation/untuned/synthetic", "evaluation/random/synthetic",
        "evaluation/s2l/synthetic", "report",
    ]  # fmt: skip
    assert plan.models == ("proxy", "target")
    assert not (tmp_path / "none").exists()
    (line,) = (line for line in str(plan).splitlines() if line.split()[0] == "proxy")
    assert line.endswith("will be made   trajectories for s2l")


def test_of_a_workdir_that_is_half_made(make_config, done):
    before = files(done)
    config = make_config()
    config.selection.runs.late = run(method="semdedup", budget_fraction=0.25, train_target=False)
    plan = plan_pipeline(config, done)
    found = states(plan)
    for name in ("pool", "proxy", "selection/s2l", "selection/random"):
        assert found.pop(name) == THERE
    assert found.pop("target/random") == GOES_ON
    assert set(found.values()) == {MADE}
    assert "selection/late" in found
    assert found["hidden_states/target-mean"] == MADE
    assert "0.25 of the pool by semdedup" in str(plan)
    assert files(done) == before


def test_stages_that_are_not_asked_for(make_config, done):
    found = states(plan_pipeline(make_config(), done, stages=["target", "report"]))
    assert found["selection/s2l"] == THERE
    assert found["target/s2l"] == MADE
    assert found["evaluation/s2l/synthetic"] == NOT_ASKED
    assert found["report"] == MADE


@pytest.mark.parametrize(
    ("field", "value", "part", "difference"),
    [
        ("proxy.train.learning_rate", 0.5, "proxy", "proxy.train.learning_rate: 0.001 before, 0.5 now"),
        ("seed", 3, "proxy", "seed: 0 before, 3 now"),
        # Of a workdir without a trained model, nothing else tells it.
        ("seed", 3, "selection/random", "selection.runs.random.seed: 0 before, 3 now"),
        ("pool.limit", 100, "pool", "pool.limit: 240 before, 100 now"),
        ("selection.runs.s2l.every", 2, "selection/s2l", "selection.runs.s2l.every: 1 before, 2 now"),
        ("selection.budget", 30, "selection/random", "selection.runs.random.budget: 60 before, 30 now"),
        ("trajectories.step_zero", True, "proxy", "trajectories.step_zero: False before, True now"),
        ("trajectories.cadence", "log", "proxy", "trajectories.num_checkpoints: absent before, 12 now"),
    ],
)
@pytest.mark.parametrize("stages", [["report"], ["selection"], ["evaluation"], ["pool", "proxy", "target"]])
def test_what_is_used_is_compared_whichever_stage_is_asked_for(
    make_config, done, field, value, part, difference, stages
):
    before = files(done)
    config = make_config()
    config.update_from_flattened_dict({field: value})
    plan = plan_pipeline(config, done, stages=stages)
    assert states(plan)[part] == REFUSED
    assert f"      {difference}" in str(plan)
    with pytest.raises(InputError, match="was made with other settings"):
        run_pipeline(config, done, stages=stages)
    assert files(done) == before


def test_settings_that_decide_nothing_are_accepted(make_config, done):
    config = make_config()
    config.proxy.train.log_every = 3
    config.trajectories.batch_tokens = 512
    config.evaluation.batch_size = 2
    config.mesh.data = 1
    assert REFUSED not in states(plan_pipeline(config, done)).values()


def test_what_is_named_and_not_there_is_said(make_config, tmp_path):
    config = make_config()
    config.trajectories.path = str(tmp_path / "none.npy")
    with pytest.raises(InputError, match=r"trajectories\.path=.*none\.npy' does not exist"):
        plan_pipeline(config, tmp_path / "run")


def test_on_the_command_line(done, tmp_path):
    command = [sys.executable, "launch.py", "--config=configs/quickstart.py", "--dry_run"]
    made = subprocess.run(
        [*command, f"--workdir={tmp_path}/new"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "selection/s2l" in made.stdout
    assert not (tmp_path / "new").exists()
    refused = subprocess.run(
        [*command, f"--workdir={done}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "refused" in refused.stdout
    assert "was made with other settings" in refused.stderr
