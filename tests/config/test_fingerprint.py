"""Which settings decide which part: every field that a part reads, and none that only says how."""

import pytest

from s2l_jax.config import deciding, deciding_run, default, run
from s2l_jax.config.fingerprint import PARTS
from s2l_jax.config.runs import COMMON, find_method, options
from s2l_jax.config.schema import walk
from s2l_jax.features.feature import FEATURES
from s2l_jax.selection import METHODS

FIELDS = dict(walk())
FEATURE_OPTIONS = {"pooling": "mean", "layer": -1, "checkpoint": "untuned", "rounds": 1}
ALL_PARTS = (*PARTS, *FEATURES)


# The fields that a run takes an option from, where it does not say otherwise.
INHERITED = {option.inherits for method in METHODS.values() for option in method.own_options.values()}


def settings_of(config, part):
    """Those of a part, or of a feature."""
    return deciding(config, part) if part in PARTS else FEATURES[part].settings(config, FEATURE_OPTIONS)


# With these every field is looked at, but for those that another value of the same field switches on.
ALL_ACTIVE = {
    "target.lora.rank": 4,
    "evaluation.temperature": 0.5,
    "evaluation.shots": 1,
    "evaluation.metrics": ("bertscore",),
    "trajectories.stop_when_stable": 2,
    "proxy.init": "random",
    "target.init": "random",
    "analysis.theory": True,
}
SWITCHED_ON = {
    "trajectories.num_checkpoints": {"trajectories.cadence": "log"},
    "trajectories.steps": {"trajectories.cadence": "list"},
}


def config_with(**changes):
    config = default()
    config.update_from_flattened_dict(ALL_ACTIVE | changes)
    return config


def another(field, value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, field.items(7))
    if isinstance(value, str):
        return f"{value}x"
    return value + 1


def value_of(config, name):
    for part in name.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_decides_is_in_the_fingerprint_of_each_part_that_reads_it(name):
    field, switched = FIELDS[name], SWITCHED_ON.get(name, {})
    config = config_with(**switched)
    other = config_with(**switched, **{name: another(field, value_of(config, name))})
    if name == "selection.states.model":  # not a text of any kind
        other = config_with(**{name: "proxy"})
    reading = [part for part in ALL_PARTS if name in settings_of(config, part)]
    for part in ALL_PARTS:
        before, after = settings_of(config, part), settings_of(other, part)
        # Another field may be looked at now that was not before, or the other way round.
        changed = {key for key in before.keys() & after.keys() if before[key] != after[key]}
        assert changed == ({name} if part in reading else set())
    told = field.decides and not field.by_content
    of_runs = name in INHERITED or (name.startswith("selection.") and name.count(".") == 1)
    assert bool(reading) <= told
    assert reading or not told or of_runs


@pytest.mark.parametrize(
    ("part", "in_it", "not_in_it"),
    [
        ("pool", ["pool.limit", "tokenize.prompt"], ["seed", "proxy.checkpoint"]),
        (
            "proxy",
            # The last as the running clustering is that of the selection, and may end the run.
            ["seed", "proxy.train.loss", "trajectories.every", "selection.stratify_by"],
            ["target.checkpoint", "selection.budget", "selection.min_cluster_size", "selection.states"],
        ),
        ("target", ["seed", "target.match_by", "target.lora.rank"], ["proxy.checkpoint", "evaluation"]),
        (
            "gradients",
            [
                *(f"target.{name}" for name in ("checkpoint", "tokenizer", "train.schedule", "train.beta1")),
                *(f"target.train.{name}" for name in ("warmup_fraction", "weight_decay", "beta2", "epsilon")),
                *(f"target.train.{name}" for name in ("clip_norm", "loss")),
                "selection.gradients.dims",
            ],
            ["target.lora.rank", "target.match_by", "target.export_dtype", "target.train.remat"],
        ),
        ("hidden_states", ["target.checkpoint", "target.tokenizer"], ["proxy.checkpoint", "target.train"]),
        ("query_states", ["selection.query_limit"], ["selection.queries"]),
        ("evaluation", ["evaluation.stop", "target.train.steps"], ["evaluation.batch_size"]),
    ],
)
def test_what_is_in_it_and_what_is_not(part, in_it, not_in_it):
    found = settings_of(config_with(), part)
    assert set(in_it) <= set(found)
    assert not [name for name in found for other in not_in_it if f"{name}.".startswith(f"{other}.")]


def test_what_is_not_looked_at_decides_nothing():
    config = default()
    inactive = {"target.lora.alpha": 3.0, "target.lora.export": "adapter", "evaluation.top_k": 4}
    for part in ALL_PARTS:
        before = settings_of(config, part)
        other = default()
        other.update_from_flattened_dict(inactive | {"trajectories.num_checkpoints": 3})
        other.evaluation.bertscore_model = "a model"
        assert settings_of(other, part) == before
    config.target.train.steps = config.proxy.train.steps = 5
    before = settings_of(config, "target")
    config.target.train.epochs, config.target.match_by = 9.0, "epochs"
    assert settings_of(config, "target") == before


def test_states_of_random_weights_go_by_the_seed():
    config = default()
    assert "seed" not in settings_of(config, "hidden_states")
    config.selection.states.model, config.proxy.init = "proxy", "random"
    found = settings_of(config, "hidden_states")
    assert found["seed"] == 0
    assert "proxy.checkpoint" in found
    assert "target.checkpoint" not in found


@pytest.mark.parametrize("method", ["s2l", "random", "rds", "full"])
def test_of_a_run_the_options_of_its_method_decide_and_no_other(method):
    config = default()
    config.selection.runs.a = run(method=method)
    found = deciding_run(config, "a", {"pool.ids_sha256": "1f"})
    looked_at = options(find_method(method).by_features("trajectories"))
    own = {"seed", *COMMON, *looked_at} - {"seeds", "train_target"}
    assert set(found) == {f"selection.runs.a.{name}" for name in own} | {"pool.ids_sha256"}


def test_what_a_run_inherits_counts_as_what_it_says():
    config = default()
    config.selection.runs.a = run()
    inherited = deciding_run(config, "a")
    config.selection.runs.a = run(budget=50_000, num_clusters=100, seeds=(0,), stratify_by="source", every=1)
    assert deciding_run(config, "a") == inherited
    config.selection.runs.a.train_target = False
    assert deciding_run(config, "a") == inherited
    config.selection.budget_fraction = 0.5
    config.selection.runs.a.budget = 0
    assert deciding_run(config, "a")["selection.runs.a.budget_fraction"] == 0.5
    assert deciding_run(config, "a")["selection.runs.a.budget"] == 0
