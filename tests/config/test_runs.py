"""The runs of a config: what each inherits, sets for itself, and may not say."""

import pytest

from s2l_jax.config import default, resolved_run, run, validate
from s2l_jax.config.selection_fields import EXPORTS
from s2l_jax.errors import InputError
from s2l_jax.selection.export import FILES


def test_what_is_left_out_is_inherited():
    config = default()
    config.seed = 7
    config.selection.budget = 123
    config.selection.stratify_by = "none"
    config.clustering.update(num_clusters=9, init="random", restarts=2)
    config.selection.runs.a = run()
    config.selection.min_cluster_size = 4
    config.selection.drop_unlearnt = 0.1
    assert resolved_run(config, "a") == run().to_dict() | {
        "method": "s2l",
        "budget": 123,
        "seed": 7,
        "num_clusters": 9,
        "stratify_by": "none",
        "min_cluster_size": 4,
        "drop_unlearnt": 0.1,
        "init": "random",
        "restarts": 2,
        "max_iterations": 20,
        "tolerance": 0.0,
    }
    config.selection.runs.full = run(method="full")
    assert resolved_run(config, "full")["drop_unlearnt"] == 0
    config.selection.runs.b = run(method="random")  # asks for strata by itself, or has none
    assert resolved_run(config, "b")["stratify_by"] == "none"


def test_what_is_set_stays():
    config = default()
    config.seed = 7
    fields = {
        "method": "s2l",
        "budget": 5,
        "seeds": (0,),
        "num_clusters": 3,
        "every": 2,
        "stratify_by": "source",
        "min_cluster_size": 0,
        "drop_unlearnt": 0.2,
        "init": "random",
        "restarts": 4,
        "max_iterations": 5,
        "tolerance": 0.5,
        "train_target": False,
    }
    config.selection.runs.a = run(**fields)
    config.selection.stratify_by = "none"
    assert resolved_run(config, "a") == run().to_dict() | fields | {"seed": 0}
    assert config.selection.runs.a.to_dict() == run().to_dict() | fields


@pytest.mark.parametrize(
    ("own", "together", "budgets"),
    [
        ({}, {}, (50_000, 0.0, 0)),
        ({}, {"budget_fraction": 0.1}, (0, 0.1, 0)),
        ({}, {"budget_tokens": 9}, (0, 0.0, 9)),
        ({"budget": 3}, {"budget_fraction": 0.1}, (3, 0.0, 0)),
        ({"budget_tokens": 9}, {"budget_fraction": 0.1}, (0, 0.0, 9)),
    ],
)
def test_one_way_to_say_the_budget(own, together, budgets):
    config = default()
    config.selection.runs.a = run(**own)
    config.selection.update(together)
    validate(config)
    entry = resolved_run(config, "a")
    assert tuple(entry[name] for name in ("budget", "budget_fraction", "budget_tokens")) == budgets


def test_another_method_may_be_set_on_the_command_line():
    config = default()
    config.selection.runs.a = run()
    config.selection.runs.a.method = "cartography"
    validate(config)
    entry = resolved_run(config, "a")
    assert entry["region"] == "ambiguous"
    assert "every" not in entry
    config.selection.runs.a.every = 2
    with pytest.raises(InputError, match="every=2: method 'cartography' has no such option; it is one of"):
        validate(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 3, "budget_tokens": 9}, "a.budget=3 and selection.runs.a.budget_tokens=9: these are"),
        ({"prefix_of": "al"}, "prefix_of='al': no such run; did you mean 'all'"),
        ({"prefix_of": "a"}, "prefix_of='a': name a run that is no prefix of another itself"),
        ({"prefix_of": "all", "seeds": (3,)}, "all of that one's settings, and seeds differ"),
    ],
)
def test_what_a_run_may_not_say(fields, message):
    config = default()
    config.selection.runs.all = run()
    config.selection.runs.a = run(**fields)
    with pytest.raises(InputError, match=message):
        validate(config)


def test_exports():
    config = default()
    config.selection.exports = ("jsonl", "parquet", "messages")
    validate(config)
    config.selection.exports = ("jsonl", "parket")
    with pytest.raises(InputError, match="no export 'parket'; did you mean 'parquet'"):
        validate(config)
    assert set(EXPORTS) == set(FILES)


def test_configs_do_not_share_what_they_hold():
    one, other = default(), default()
    one.proxy.train.steps = 5
    assert other.proxy.train.steps == one.target.train.steps == 0
