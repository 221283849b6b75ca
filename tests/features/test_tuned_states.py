"""Hidden states of tuned weights: of the proxy at its checkpoints, or of a folder."""

import types

import numpy as np
import pytest

from s2l_jax.config import default, run
from s2l_jax.errors import InputError
from s2l_jax.features import tuned_weights
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.trajectories.snapshots import MARK
from tests.support.pipeline_kills import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

STAGES = ("pool", "proxy", "selection")


@pytest.fixture(scope="module")
def make_config(tiny_checkpoint):
    def make(**checkpoints):
        config = small_config(str(tiny_checkpoint))
        config.pool.limit, config.proxy.train.steps, config.proxy.save_params = 120, 6, True
        config.selection.states.model = "proxy"
        config.selection.runs = {}
        for name, checkpoint in checkpoints.items():
            config.selection.runs[name] = run(
                method="s2l", features="hidden_states", checkpoint=checkpoint, train_target=False
            )
        return config

    return make


def test_the_last_checkpoint_is_the_last_that_was_swept(tmp_path):
    """Of snapshots that were kept at more steps than are listed."""
    for step in (3, 6):
        (tmp_path / str(step)).mkdir()
        (tmp_path / str(step) / MARK).write_text("{}")
    config = default()
    config.trajectories.snapshots = str(tmp_path)
    stated = types.SimpleNamespace(config=config, workdir=tmp_path / "run")
    assert tuned_weights._folder(stated, "last").name == "6"
    config.trajectories.update(cadence="list", steps=(3,))
    assert tuned_weights._folder(stated, "last").name == "3"
    with pytest.raises(InputError, match="checkpoint='6': no such checkpoint"):
        tuned_weights._folder(stated, "6")


@pytest.fixture(scope="module")
def made(make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    run_pipeline(make_config(first="first", as_it_came="untuned"), workdir, stages=STAGES)
    last = str(workdir / "proxy" / "snapshots" / "6")
    config = make_config(first="first", last="last", step="3", as_it_came="untuned", folder=last)
    return workdir, run_pipeline(config, workdir, stages=STAGES)


def states_of(made, name):
    workdir, results = made
    (part,) = (part for part in results["selections"][name]["used"] if part.startswith("hidden_states"))
    return np.load(workdir / part / "states.npy")


def test_they_are_of_the_weights_that_are_named(made):
    first, last = states_of(made, "first"), states_of(made, "last")
    assert np.array_equal(states_of(made, "step"), first)
    assert np.array_equal(states_of(made, "folder"), last)
    for other in (first, states_of(made, "as_it_came")):
        assert np.abs(last - other).max() > 1e-3


def test_the_proxy_is_trained_for_them_and_charged(made):
    _, results = made
    used = {name: chosen["used"] for name, chosen in results["selections"].items()}
    assert used["step"] == ["proxy", "hidden_states/proxy-mean-step3"]
    assert used["as_it_came"] == ["hidden_states/proxy-mean"]
    assert results["proxy"]["steps"] == 6


def test_each_seed_has_those_of_its_own_proxy(make_config, tmp_path):
    config = make_config(last="last")
    config.selection.runs.near = run(method="rds", checkpoint="last", train_target=False)
    config.seeds, config.proxy.per_seed = (0, 1), True
    (tmp_path / "queries.jsonl").write_text('{"instruction": "1 + 1", "output": "2"}\n')
    config.selection.queries = str(tmp_path / "queries.jsonl")
    parts = {part.name: part for part in plan_pipeline(config, tmp_path / "run").parts}
    assert "seed_1/hidden_states/proxy-mean-last" in parts
    assert parts["seed_1/proxy"].why == "trajectories for last-seed1, near-seed1"
    assert parts["selection/near-seed1"].settings["proxy.per_seed"]


@pytest.mark.parametrize(
    ("checkpoint", "changes", "reason"),
    [
        ("4", {}, "checkpoint='4': no such checkpoint; use first, last or a step of 3, 6"),
        ("last", {"proxy.save_params": False}, "set proxy.save_params=True"),
        ("last", {"selection.states.model": "target"}, "set selection.states.model='proxy'"),
        ("nowhere", {}, "neither untuned, first, last, a step of the proxy, nor a folder"),
    ],
)
def test_a_checkpoint_that_there_is_not_is_refused_before_training(
    make_config, tmp_path, checkpoint, changes, reason
):
    config = make_config(run=checkpoint)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=reason):
        run_pipeline(config, tmp_path / "run", stages=STAGES)
    assert not (tmp_path / "run" / "proxy").exists()


def test_losses_alone_have_no_checkpoint(make_config, tmp_path):
    np.save(tmp_path / "losses.npy", np.ones((120, 2), np.float32))
    config = make_config(run="last")
    config.proxy.save_params = False
    config.trajectories.path = str(tmp_path / "losses.npy")
    with pytest.raises(InputError, match=r"losses\.npy' has losses, and no parameters of the proxy"):
        run_pipeline(config, tmp_path / "run", stages=STAGES)


def test_a_loss_at_a_step_that_is_not_swept_is_refused_before_training(make_config, tmp_path):
    config = make_config()
    config.selection.runs.least = run(method="least_confidence", checkpoint="4")
    with pytest.raises(InputError, match=r"selection.runs.least: checkpoint='4': no such checkpoint"):
        run_pipeline(config, tmp_path / "run", stages=STAGES)
    assert not (tmp_path / "run" / "proxy").exists()
