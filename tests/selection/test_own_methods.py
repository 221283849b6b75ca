"""Methods and features of a user's own: in a module, by name, with options, in the library and in configs."""

import sys

import numpy as np
import pytest

from s2l_jax.config import default, describe, load, resolved_run, run, validate
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.plan import make_plan
from s2l_jax.selection import METHODS, Selection, SelectionInputs, select

MODULE = '''
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from s2l_jax.data.order import priorities
from s2l_jax.features.arrays import numbers
from s2l_jax.features.feature import FEATURES, Feature
from s2l_jax.selection import Ranking, method


class Difficulty(Feature):
    """How hard each example is for people."""

    arrays = {"difficulty": numbers("n")}
    source = "ask people"


FEATURES.enter("difficulty_of_own_methods", Difficulty())


@method("hardest_of_own_methods", needs=["difficulty_of_own_methods"])
def hardest(inputs, count, seed, *, ends: Literal["top", "both"] = "top", skip: Annotated[int, Ge(0)] = 0):
    """The hardest.

    Options:
      ends: which end of the ranking is taken.
      skip: rows at the top that are left out.
    """
    score = inputs.difficulty if ends == "top" else np.abs(inputs.difficulty)
    return Ranking(np.argsort(-score, kind="stable")[skip:], scores=score)


@method("by_embeddings_of_own_methods", needs=["embeddings"])
def by_embeddings(inputs, count, seed):
    """By hidden states, or embeddings; it has no rounds."""
    return Ranking(np.argsort(inputs.hidden_states[:, 0], kind="stable"))


@method("with_replacement_of_own_methods")
def with_replacement(inputs, count, seed):
    """Rows drawn with replacement; how often a row came is its weight."""
    drawn = np.random.default_rng(seed).integers(0, inputs.num_examples, count)
    rows, times = np.unique(drawn, return_counts=True)
    weights = np.zeros(inputs.num_examples, np.float32)
    weights[rows] = times
    return Ranking(rows, nested=False, weights=weights)
'''


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "methods_of_a_user.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


DIFFICULTY = np.array([0.1, -3.0, 2.0, 0.5, 1.0])


def test_a_method_with_a_feature_of_its_own():
    METHODS.find("methods_of_a_user:hardest")  # which enters the feature
    inputs = SelectionInputs(difficulty=DIFFICULTY)
    assert select(inputs, 2, method="methods_of_a_user:hardest").indices.tolist() == [2, 4]
    both = select(inputs, 2, method="methods_of_a_user:hardest", ends="both", skip=1)
    assert both.order.tolist() == [2, 4]
    assert (both.method, both.options) == ("methods_of_a_user:hardest", {"ends": "both", "skip": 1})
    with pytest.raises(InputError, match="needs difficulty_of_own_methods, which is missing: ask people"):
        select(SelectionInputs(ids=[1, 2]), 1, method="methods_of_a_user:hardest")
    with pytest.raises(InputError, match="skip must be at least 0, got -1"):
        select(inputs, 2, method="methods_of_a_user:hardest", skip=-1)


def test_its_options_are_fields_of_its_runs():
    config = default()
    config.selection.runs.own = run(method="methods_of_a_user:hardest", skip=3)
    validate(config)
    assert resolved_run(config, "own")["ends"] == "top"
    config.selection.runs.own.ends = "bottom"
    with pytest.raises(InputError, match=r"selection\.runs\.own\.ends='bottom': must be one of top, both"):
        validate(config)
    assert "selection.runs.<name>.skip = 0\n" in describe()


def test_embeddings_are_for_methods_without_rounds_too(tmp_path):
    config = default()
    config.target.checkpoint = "folder"
    config.selection.runs.own = run(method="methods_of_a_user:by_embeddings", pooling="last")
    parts = {part.name for part in make_plan(config, tmp_path).parts}
    assert "hidden_states/target-last" in parts


def test_an_option_that_is_not_described_is_said(tmp_path, monkeypatch):
    (tmp_path / "undescribed_method.py").write_text(
        "from s2l_jax.selection import method\n\n\n"
        "@method('undescribed')\ndef undescribed(inputs, count, seed, *, low: float = 0.0):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"undescribed_method\.undescribed: option 'low' has no meaning"):
        run(method="undescribed_method:undescribed")
    assert "undescribed" not in METHODS


def test_what_does_not_nest_offers_no_smaller_subset(tmp_path):
    inputs = SelectionInputs(ids=np.arange(30))
    chosen = select(inputs, 20, method="methods_of_a_user:with_replacement", seed=3)
    assert chosen.weights.sum() == 20
    assert chosen.weights.max() > 1
    assert len(chosen.indices) == len(set(chosen.indices.tolist())) < 20
    chosen.save(tmp_path)
    loaded = Selection.load(tmp_path)
    assert np.array_equal(loaded.weights, chosen.weights)
    for each in (chosen, loaded):
        with pytest.raises(InputError, match="does not nest"):
            each.first(3)


def test_weights_of_a_smaller_subset_are_those_it_had(tmp_path):
    chosen = select(SelectionInputs(ids=np.arange(9)), 6, method="random")
    chosen.weights = np.arange(6, dtype=np.float32)
    own = dict(zip(chosen.indices.tolist(), chosen.weights.tolist(), strict=True))
    smaller = chosen.first(2)
    assert smaller.weights.tolist() == [own[row] for row in smaller.indices.tolist()]


def test_one_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "my_faulty.py").write_text(
        "from s2l_jax.selection import method\n"
        "@method('faulty', needs=['trajectories'])\n"
        "def faulty(inputs, count, seed):\n"
        "    raise ZeroDivisionError('by a source without rows')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    np.save(tmp_path / "losses.npy", np.ones((40, 3), np.float32))
    config = load("select_only")
    config.trajectories.path = str(tmp_path / "losses.npy")
    config.selection.budget = 20
    config.selection.runs = {"mine": run(method="my_faulty:faulty", train_target=False)}
    with pytest.raises(ZeroDivisionError, match="without rows") as error:
        run_pipeline(config, tmp_path / "run")
    assert error.value.__notes__ == ["This was in selection.runs.mine, method 'my_faulty:faulty'."]
