"""Subsets made elsewhere or before: of the rows that they were chosen from, and of no others."""

import numpy as np
import pytest

from s2l_jax.config import load, run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import Selection, select
from tests.support.pool_rows import write_jsonl


@pytest.fixture
def config(tmp_path):
    """Of selections from 40 rows and their losses, without a model."""
    rows = [{"instruction": f"Add {n} and 1.", "output": str(n + 1)} for n in range(40)]
    np.save(tmp_path / "losses.npy", np.random.default_rng(0).random((40, 3), np.float32))
    config = load("select_only")
    config.pool.path = str(write_jsonl(tmp_path / "pool.jsonl", rows))
    config.trajectories.path = str(tmp_path / "losses.npy")
    config.clustering.num_clusters, config.selection.budget = 4, 12
    config.selection.runs = {"s2l": run(method="s2l", train_target=False)}
    return config


def given(config, path, folder):
    config.trajectories.path, config.selection.path = "", str(path)
    config.selection.runs = {"again": run(method="given", train_target=False)}
    run_pipeline(config, folder, stages=["pool", "selection"])
    return Selection.load(folder / "selection" / "again").indices


def test_a_subset_is_of_the_rows_that_it_was_chosen_from(config, tmp_path):
    run_pipeline(config, tmp_path / "run", stages=["pool", "selection"])
    chosen = tmp_path / "run" / "selection" / "s2l"
    indices = Selection.load(chosen).indices
    assert np.array_equal(given(config, chosen, tmp_path / "same"), indices)
    rows = (tmp_path / "pool.jsonl").read_text().splitlines()
    (tmp_path / "pool.jsonl").write_text("\n".join([*rows[1:], rows[0]]))  # as many, in another order
    for place in (chosen, chosen / "indices.npy"):
        with pytest.raises(InputError, match="s2l was chosen from other rows than the pool has"):
            given(config, place, tmp_path / "other")
    np.save(tmp_path / "list.npy", indices)  # of a list by itself nothing is known
    assert np.array_equal(given(config, tmp_path / "list.npy", tmp_path / "listed"), indices)


def test_a_subset_that_was_chosen_by_row_numbers_is_of_any_pool_of_the_size(config, tmp_path):
    select(np.load(config.trajectories.path), budget=12, num_clusters=4).save(tmp_path / "numbers")
    assert len(given(config, tmp_path / "numbers", tmp_path / "run")) == 12
    config.pool.limit = 39
    with pytest.raises(InputError, match="was chosen from other rows"):
        given(config, tmp_path / "numbers", tmp_path / "fewer")


def test_rows_weigh_what_the_selection_gave_them(config, tmp_path):
    run_pipeline(config, tmp_path / "run", stages=["pool", "selection"])
    before = Selection.load(tmp_path / "run" / "selection" / "s2l")
    assert len(np.unique(before.weights)) > 1
    given(config, tmp_path / "run" / "selection" / "s2l", tmp_path / "again")
    again = Selection.load(tmp_path / "again" / "selection" / "again")
    assert np.array_equal(again.weights, before.weights)
    np.save(tmp_path / "list.npy", before.indices[::-1])
    given(config, tmp_path / "list.npy", tmp_path / "listed")
    assert (Selection.load(tmp_path / "listed" / "selection" / "again").weights == 1).all()


def test_tokens_of_a_part_are_the_targets_whenever_it_is_asked_for(config, tmp_path, tiny_checkpoint):
    """The larger subset may be older than the need to count tokens."""
    config.target.checkpoint, config.tokenize.prompt = str(tiny_checkpoint), "plain"
    later = config.copy_and_resolve_references()
    later.selection.runs.part = run(method="s2l", budget_tokens=60, prefix_of="s2l", train_target=False)
    run_pipeline(config, tmp_path / "run", stages=["pool", "selection"])
    for folder in ("run", "at_once"):
        run_pipeline(later, tmp_path / folder, stages=["pool", "selection"])
    parts = [Selection.load(tmp_path / folder / "selection" / "part") for folder in ("run", "at_once")]
    assert 0 < len(parts[0].indices) < 12
    assert np.array_equal(parts[0].indices, parts[1].indices)
    assert np.array_equal(parts[0].num_tokens, parts[1].num_tokens)
