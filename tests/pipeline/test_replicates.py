"""Replicates and budgets of one workdir: added later they are what they are at once, and all else stays."""

import json

import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from tests.support.pipeline_kills import small_config

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

ADDED = {"seeds": (0, 1), "selection.budgets": ("30", "60")}
NAMES = {
    f"{run}{budget}{seed}" for run in ("s2l", "random") for budget in ("", "-30") for seed in ("", "-seed1")
}


@pytest.fixture(scope="module")
def make_config(tiny_checkpoint):
    def make(**changes):
        config = small_config(str(tiny_checkpoint))
        config.pool.limit, config.proxy.train.steps, config.target.train.steps = 120, 6, 4
        config.update_from_flattened_dict(changes)
        return config

    return make


def content(workdir):
    """Bytes of the results of every part, but for records, which have times."""
    files = [f for part in ("selection", "target", "evaluation") for f in (workdir / part).rglob("*")]
    kept = [f for f in files if f.is_file() and f.suffix in {".npy", ".safetensors", ".jsonl"}]
    return {str(f.relative_to(workdir)): f.read_bytes() for f in kept}


@pytest.fixture(scope="module")
def at_once(make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("at_once") / "run"
    return workdir, run_pipeline(make_config(**ADDED), workdir)


@pytest.fixture(scope="module")
def in_turn(make_config, tmp_path_factory):
    """A workdir before and after replicates and budgets were added."""
    workdir = tmp_path_factory.mktemp("in_turn") / "run"
    first = run_pipeline(make_config(), workdir)
    before = content(workdir)
    run_pipeline(make_config(**ADDED), workdir)
    return first, before, content(workdir)


def test_what_is_added_is_what_it_is_at_once(at_once, in_turn):
    assert content(at_once[0]) == in_turn[2]


def test_what_was_there_stays(in_turn):
    first, before, after = in_turn
    assert set(first["selections"]) == {"s2l", "random"}
    assert {name: after[name] for name in before} == before


def test_every_subset_has_a_target_and_its_own_seed(at_once):
    workdir, results = at_once
    assert set(results["selections"]) == set(results["targets"]) == NAMES
    assert results["selections"]["s2l-30-seed1"]["seed"] == 1
    order = {
        name: json.loads((workdir / "target" / name / "stage.json").read_text())["settings"]["seed"]
        for name in NAMES
    }
    assert order == {name: int(name.endswith("-seed1")) for name in NAMES}
    curves = {name: results["targets"][name]["curve"]["loss"] for name in ("random", "random-seed1")}
    assert curves["random"] != curves["random-seed1"]


@pytest.mark.parametrize("seed", ["", "-seed1"])
@pytest.mark.parametrize("run", ["s2l", "random"])
def test_budgets_nest(at_once, run, seed):
    small, large = (
        np.load(at_once[0] / "selection" / f"{run}{budget}{seed}" / "indices.npy") for budget in ("-30", "")
    )
    assert (len(small), len(large)) == (30, 60)
    assert set(small) < set(large)


def test_methods_are_compared_with_the_baseline_at_their_budget(at_once):
    _, results = at_once
    comparisons = results["comparisons"]
    assert comparisons["baseline"] == "random"
    compared = {(each["label"], each["budget"]): each for each in comparisons["heldout_loss"]}
    for budget in (30, 60):
        difference = compared["s2l", budget]["difference"]
        assert difference["num_replicates"] == 2
        name = "" if budget == 60 else "-30"
        losses = {
            run: [
                results["evaluations"][f"{run}{name}{seed}"]["overall"]["heldout_loss"]
                for seed in ("", "-seed1")
            ]
            for run in ("s2l", "random")
        }
        assert difference["mean"] == pytest.approx(
            np.mean(losses["s2l"]) - np.mean(losses["random"]), abs=1e-6
        )


def test_a_baseline_that_is_no_run_is_said(make_config, tmp_path):
    with pytest.raises(InputError, match=r"report.baseline='randon': no such run .* did you mean 'random'"):
        run_pipeline(make_config(**{"report.baseline": "randon"}), tmp_path)
