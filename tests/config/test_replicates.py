"""What entries of selection.runs stand for: names, budgets and seeds of their subsets."""

import pytest

from s2l_jax.config import default, resolved_run, run, validate
from s2l_jax.config.replicates import entry_of, expand, parse_budget
from s2l_jax.errors import InputError


def config_of(seed=0, seeds=(), budget=600, budgets=(), **runs):
    config = default()
    config.seed, config.seeds = seed, seeds
    config.selection.budget, config.selection.budgets = budget, budgets
    for name, fields in runs.items():
        config.selection.runs[name] = run(**fields)
    validate(config)
    return config


def subsets(config):
    """Name -> (budget as set, seed) of every subset."""
    expanded = expand(config)
    validate(expanded)
    entries = {name: resolved_run(expanded, name) for name in expanded.selection.runs}
    budgets = ("budget", "budget_fraction", "budget_tokens")
    return {name: (*(e[b] for b in budgets if e[b]), e["seed"]) for name, e in entries.items()}


def test_without_seeds_and_budgets_every_run_is_one_subset():
    config = config_of(seed=3, a={}, b={"method": "random", "budget": 5})
    assert subsets(config) == {"a": (600, 3), "b": (5, 3)}


def test_the_subset_of_the_first_seed_keeps_its_name_so_that_seeds_can_be_added():
    config = config_of(a={}, b={"seeds": (7,)}, seeds=(0, 1, 2))
    assert subsets(config) == {"a": (600, 0), "a-seed1": (600, 1), "a-seed2": (600, 2), "b-seed7": (600, 7)}


def test_budgets_cross_with_runs_that_have_none_and_with_seeds():
    config = config_of(
        a={}, own={"budget_tokens": 9}, full={"method": "full"}, budgets=("5%", "600", "2000t"), seeds=(0, 1)
    )
    assert subsets(config) == {
        "a-5pct": (0.05, 0), "a-5pct-seed1": (0.05, 1),
        "a": (600, 0), "a-seed1": (600, 1),
        "a-2000t": (2000, 0), "a-2000t-seed1": (2000, 1),
        "own": (9, 0), "own-seed1": (9, 1),
        "full": (600, 0), "full-seed1": (600, 1),
    }  # fmt: skip


def test_the_name_of_a_subset_says_of_which_run_it_is():
    budgets = ("5%", "12.5%", "600", "2000t")
    config = config_of(a_5={}, b={"method": "random"}, budgets=budgets, seeds=(0, 1))
    assert {entry_of(name) for name in subsets(config)} == {"a_5", "b"}


def test_a_prefix_is_of_the_subset_of_its_own_seed():
    expanded = expand(config_of(a={}, part={"budget": 5, "prefix_of": "a"}, seeds=(0, 1)))
    assert expanded.selection.runs["part-seed1"].prefix_of == "a-seed1"
    validate(expanded)


def test_a_prefix_of_a_subset_that_budgets_have_renamed_is_refused():
    config = config_of(a={}, part={"budget": 5, "prefix_of": "a"}, budgets=("5%", "10%"))
    with pytest.raises(InputError, match=r"runs\.part\.prefix_of='a': there is no such subset"):
        expand(config)


def test_budgets_that_names_cannot_tell_apart_are_refused():
    with pytest.raises(InputError, match=r"'33.3333332%' is there twice"):
        expand(config_of(a={}, budgets=("33.3333331%", "33.3333332%")))


@pytest.mark.parametrize(
    ("text", "fields"),
    [("600", {"budget": 600}), ("2.5%", {"budget_fraction": 0.025}), (" 90t", {"budget_tokens": 90})],
)
def test_ways_to_write_a_budget(text, fields):
    assert parse_budget(text) == fields


@pytest.mark.parametrize("text", ["0", "0.5", "-3", "100%", "0%", "5 %%", "1e3", "t", "1.5t", "ten"])
def test_what_is_no_budget_is_said(text):
    with pytest.raises(InputError, match="is no budget; write rows as 600"):
        parse_budget(text)


def test_what_is_there_twice_is_said():
    with pytest.raises(InputError, match=r"selection\.budgets: '2%' is there twice"):
        expand(config_of(a={}, budgets=("2%", "2%")))
    with pytest.raises(InputError, match="'a-seed1' is the name of two subsets; rename the run"):
        expand(config_of(**{"a": {"seeds": (0, 1)}, "a-seed1": {}}))
