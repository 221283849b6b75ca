"""The config: every field is described and checked, and a wrong one is named with the right one."""

import re

import pytest
from ml_collections import ConfigDict

from s2l_jax.clustering import DISTANCES
from s2l_jax.config import (
    SCHEMA,
    default,
    describe,
    load,
    nearest_field,
    resolved_run,
    run,
    validate,
)
from s2l_jax.config.evaluation_fields import METRICS
from s2l_jax.config.model_fields import DTYPES
from s2l_jax.config.runs import COMMON, run_schema
from s2l_jax.config.schema import walk
from s2l_jax.data.chat import CHAT
from s2l_jax.data.prompts import TEMPLATES
from s2l_jax.data.tokens import BOUNDARIES
from s2l_jax.errors import InputError
from s2l_jax.evaluation import metrics
from s2l_jax.models import weights
from s2l_jax.selection.method import METHODS
from tests.support.paths import REPOSITORY

CONFIGS = REPOSITORY / "configs"


FIELDS = list(walk())
NEEDS_ANOTHER_FIELD = {
    ("proxy.init", "random"),
    ("target.init", "random"),
    ("trajectories.cadence", "list"),
    ("tokenize.turns", "all"),
}
# The method is a run's own field, by which the others are told apart.
OF_RUNS = [
    (f"selection.runs.{method}.{name}", field)
    for method in METHODS
    for name, field in run_schema(method).items()
    if name != "method" and (name not in COMMON or method == "random")
]


def with_value(path, value):
    """The default config with a run for each method, and a field set without ConfigDict's own checks."""
    config = default()
    config.selection.runs.a = run()
    for method in METHODS:
        config.selection.runs[method] = run(method=method)
    *groups, name = path.split(".")
    at = config
    for group in groups:
        at = at[group]
    with at.ignore_type():
        at[name] = value
    return config


def bad_values(field):
    """Values the field must refuse, of its type and of others."""
    kind = type(field.default)
    if kind is bool:
        return [1, "True", None]
    if kind is tuple:
        other = "1" if field.items is int else 1
        return ["a", None, (other,), *([("no such choice",)] if field.choices else [])]
    if kind is str:
        return [1, None, *(["no such choice", ""] if field.choices else [])]
    out = [-2, 0, 1, 1.5, float("inf")]
    bad = ["1", None, float("nan"), float("inf"), *(v for v in out if not field.check(v))]
    # ConfigDict itself turns True into 1.0 for a float.
    return bad + ([1.5, 2.0, True] if kind is int else [])


def test_no_run_is_named_as_the_untuned_target():
    config = default()
    config.selection.runs.untuned = run()
    with pytest.raises(
        InputError, match=r"selection\.runs\.untuned: results have the untuned target by that"
    ):
        validate(config)


class TestFields:
    def test_the_default_config(self):
        config = default()
        validate(config)
        config.selection.runs.a = run()
        validate(config)

    @pytest.mark.parametrize(("path", "field"), FIELDS + OF_RUNS, ids=lambda p: str(p)[:60])
    def test_values_it_may_not_have(self, path, field):
        for value in bad_values(field):
            with pytest.raises(InputError) as error:
                validate(with_value(path, value))
            shown = float(value) if type(value) is int and type(field.default) is float else value
            assert str(error.value).startswith(f"{path}={shown!r}: ")
        for choice in () if isinstance(field.default, tuple) else field.choices:
            if (path, choice) not in NEEDS_ANOTHER_FIELD:
                validate(with_value(path, choice))

    @pytest.mark.parametrize(("path", "field"), FIELDS + OF_RUNS, ids=lambda p: str(p)[:60])
    def test_is_described(self, path, field):
        assert field.doc
        assert field.check(field.default)
        shown = re.sub(r"\.runs\.\w+", ".runs.<name>", path)
        assert f"  {shown} = {field.default!r}\n" in describe()
        assert nearest_field(path) is None

    @pytest.mark.parametrize(("path", "field"), FIELDS + OF_RUNS, ids=lambda p: str(p)[:60])
    def test_is_described_in_a_line_that_can_be_read_alone(self, path, field):
        first, *rest = field.doc.replace(":", "").split()
        assert rest
        leaning = {"of", "of it", "it", "that", "this", "those", "they", "them", "the", "same", "also", "in"}
        assert first.lower() not in leaning

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("seed", -1, "must be 0 or above"),
            ("seed", 0.5, "needs a whole number"),
            ("seed", True, "needs a whole number"),
            ("proxy.train.pack", 1, "needs True or False"),
            ("proxy.train.pack", "False", "needs True or False"),
            ("proxy.train.beta1", 1.0, "must be at least 0 and below 1"),
            ("proxy.train.epochs", "3", "needs a number"),
            ("tokenize.max_length", 1, "must be 2 or above"),
            ("tokenize.boundary", "joint", "must be one of separate, official"),
            ("mesh.fsdp", 0, "must be above 0, or -1 for what remains"),
            ("pool.path", None, "needs text"),
            (
                "selection.runs.a.method",
                "s3l",
                "unknown selection method: 's3l'; did you mean 's2l'",
            ),
            ("selection.runs.a.method", "os:path", "'os:path' is no selection method, it is a module"),
            ("selection.runs.a.method", 3, "needs text"),
            ("selection.runs.a.distance", "manhattan", "must be one of euclidean, cosine, correlation"),
            ("evaluation.stop", "END", "needs texts with commas between"),
            ("selection.runs.a.seeds", (1, 1), "must be different whole numbers"),
            ("seeds", (-1,), "must be different whole numbers"),
        ],
    )
    def test_says_what_it_may_be(self, path, value, message):
        with pytest.raises(InputError, match=re.escape(f"{path}={value!r}: {message}")):
            validate(with_value(path, value))

    @pytest.mark.parametrize(
        ("path", "value"),
        [("proxy.train.epochs", 1), ("proxy.train.learning_rate", 1), ("mesh.tensor", -1)],
    )
    def test_values_it_may_have(self, path, value):
        validate(with_value(path, value))

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("trajectories.steps", (3, "x"), "needs whole numbers with commas between"),
            ("trajectories.steps", (3, True), "needs whole numbers with commas between"),
            ("trajectories.steps", (-1,), "must be 0 or above each"),
            ("clustering.compare", (5, 5), "must be different whole numbers from 2 up"),
            ("clustering.compare", (1,), "must be different whole numbers from 2 up"),
            ("selection.exports", ("jsonl", "parket"), "no export 'parket'; did you mean 'parquet'"),
            ("selection.gradients.projections", ("query", "kye"), "no projection 'kye'; did you mean 'key'"),
            ("selection.gradients.projections", ("all", "key"), "must be projections of a layer, or all"),
            ("evaluation.metrics", (), "must be of accuracy, bleu, rouge, bertscore, at least one"),
            ("evaluation.stop", ("END", ""), "must be texts, none of them empty"),
        ],
    )
    def test_lists(self, path, value, message):
        with pytest.raises(InputError) as error:
            validate(with_value(path, value))
        assert str(error.value).startswith(f"{path}={value!r}: {message}")

    def test_choices_are_those_that_the_code_has(self):
        assert set(DTYPES) < set(weights.DTYPES)
        assert {*METRICS} == {"accuracy", "bertscore", *metrics._METRICS}
        assert set(run_schema("s2l")["distance"].choices) == set(DISTANCES)
        assert set(SCHEMA["tokenize"]["boundary"].choices) == set(BOUNDARIES)
        assert set(SCHEMA["tokenize"]["prompt"].choices) == {*TEMPLATES, CHAT}


class TestNames:
    @pytest.mark.parametrize(
        ("path", "near"),
        [
            ("sed", "seed"),
            ("pool.pth", "path"),
            ("proxy.train.bach_size", "batch_size"),
            ("trajectory", "trajectories"),
            ("selection.runs.a.bugdet", "budget"),
            ("target.match", "match_by"),
            ("proxy.keep", "save_params"),
            ("selection.runs.a.within", "prefix_of"),
            ("selection.runs.a.first", "num_checkpoints"),
            ("selection.runs.a.cluster_whole", "cluster_small_sources"),
        ],
    )
    def test_a_misspelt_field_gets_the_nearest(self, path, near):
        with pytest.raises(InputError, match=f"{path}: no such field; did you mean '{near}'"):
            validate(with_value(path, 1))

    def test_one_like_no_other(self):
        with pytest.raises(InputError, match=r"zzzzzz: no such field\.$"):
            validate(with_value("zzzzzz", 1))

    @pytest.mark.parametrize("path", ["seed", "mesh", "pool.fields.id", "selection.runs.a.budget"])
    def test_a_missing_field(self, path):
        config = default()
        config.selection.runs.a = run()
        *groups, name = path.split(".")
        at = config
        for group in groups:
            at = at[group]
        del at[name]
        with pytest.raises(InputError, match=f"{path}: missing; start the config from"):
            validate(config)

    def test_a_value_for_a_group(self):
        config = default()
        config.selection.runs = ConfigDict({"a": 3})
        with pytest.raises(InputError, match=r"selection\.runs\.a: 3 is not a group"):
            validate(config)
        with pytest.raises(InputError, match=r"pool: 'a\.jsonl' is not a group"):
            validate(with_value("pool", "a.jsonl"))
        with pytest.raises(InputError, match=r"selection\.runs=\('s2l',\): needs a group"):
            validate(with_value("selection.runs", ("s2l",)))
        config = default()
        with config.ignore_type():
            config.selection = 5
        with pytest.raises(InputError, match=r"selection: 5 is not a group"):
            validate(config)

    @pytest.mark.parametrize("name", ["a/b", "", "ä", "a b", "a\n"])
    def test_names_of_runs_are_folder_names(self, name):
        config = default()
        config.selection.runs[name] = run()
        with pytest.raises(InputError, match="a run is named in letters, digits"):
            validate(config)

    def test_of_a_run_made_in_a_config_file(self):
        entry = run(method="random", seeds=(3,))
        assert (entry.method, entry.seeds, entry.budget) == ("random", (3,), 0)
        with pytest.raises(InputError, match="no field 'metod'; did you mean 'method'"):
            run(metod="s2l")
        with pytest.raises(InputError, match="no field 'every'"):
            run(method="random", every=2)
        with pytest.raises(InputError, match="unknown selection method: 'randon'; did you mean 'random'"):
            run(method="randon")
        with pytest.raises(InputError, match="no field 'within'; did you mean 'prefix_of'"):
            run(within="s2l")

    @pytest.mark.parametrize(
        ("path", "hint"),
        [
            ("proxy.train.bach_size", "; did you mean 'proxy.train.batch_size'?"),
            ("selection.runs.s2l.bugdet", "; did you mean 'budget'?"),
            ("proxy.keep", "; did you mean 'proxy.save_params'?"),
            ("target.match", "; did you mean 'target.match_by'?"),
            ("selection.runs.s2l.first", "; did you mean 'num_checkpoints'?"),
            ("proxy", "; it is a group, with 'proxy.checkpoint' in it."),
            ("selection", "; it is a group, with 'selection.path' in it."),
            ("selection.runs.s2l", "; a run's fields are selection.runs.<name>.method, .budget"),
            ("selection.runs.s2l.budget.x", "; a run's fields are"),
            ("qqqq", "."),
        ],
    )
    def test_of_overrides(self, path, hint):
        assert nearest_field(path).startswith(hint)


class TestTogether:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"proxy.train.batch_size": 10, "proxy.train.accumulation": 4},
                r"proxy\.train\.batch_size=10 does not divide by proxy\.train\.accumulation=4",
            ),
            (
                {"target.train.batch_size": 9, "target.train.accumulation": 2},
                r"target\.train\.batch_size=9",
            ),
            ({"proxy.init": "random"}, r"proxy\.init='random' needs proxy\.model_config"),
            (
                {"target.use_weights": True},
                r"target\.use_weights=True needs target\.train\.loss='example'",
            ),
            (
                {"proxy.train.steps": 40, "trajectories.every": 41},
                r"trajectories\.every=41 is longer than the proxy's run of 40 steps",
            ),
            ({"trajectories.cadence": "list"}, r"trajectories\.steps=\(\) and trajectories\.cadence='list'"),
            (
                {"trajectories.slice_count": 10, "trajectories.slice_fraction": 0.5},
                r"trajectories\.slice_count=10 and trajectories\.slice_fraction=0\.5: .* set one of them",
            ),
            (
                {"trajectories.slice_ids": "ids.txt", "trajectories.path": "t.npy"},
                r"trajectories\.slice_ids='ids\.txt': trajectories\.path has its own rows",
            ),
            (
                {"trajectories.snapshots": "proxy/snapshots", "trajectories.path": "t.npy"},
                r"trajectories\.path and trajectories\.snapshots: set the one to start from",
            ),
            (
                {"trajectories.source": "train", "proxy.save_params": True},
                r"proxy\.save_params is for sweeps, and with trajectories\.source='train' there are none",
            ),
            (
                {"trajectories.source": "train", "trajectories.snapshots": "folder"},
                r"trajectories\.snapshots is for sweeps",
            ),
            (
                {"trajectories.source": "train", "trajectories.step_zero": True},
                r"trajectories\.step_zero is for sweeps",
            ),
            (
                {"trajectories.checkpoints": ("out/checkpoint-*",), "trajectories.stop_when_stable": 2},
                r"stop_when_stable is for a proxy .* and trajectories\.checkpoints=\('out/",
            ),
            (
                {"trajectories.path": "t.npy", "proxy.save_params": True},
                r"save_params is for a proxy .* trajectories\.path='t\.npy' trains none",
            ),
            ({"trajectories.steps": (3, 4)}, r"steps are listed with cadence='list', and only with it"),
        ],
    )
    def test_fields_that_disagree(self, changes, message):
        config = default()
        config.update_from_flattened_dict(changes)
        with pytest.raises(InputError, match=message):
            validate(config)

    @pytest.mark.parametrize(
        "changes",
        [
            {"proxy.train.batch_size": 12, "proxy.train.accumulation": 4},
            {"proxy.init": "random", "proxy.model_config": "config.json"},
            {"proxy.init": "random", "proxy.checkpoint": "folder"},
            {"target.use_weights": True, "target.train.loss": "example"},
            {"proxy.train.steps": 40, "trajectories.every": 40},
            {"proxy.train.steps": 4, "trajectories.every": 40, "trajectories.path": "t.npy"},
            {"proxy.train.steps": 4, "trajectories.every": 40, "trajectories.snapshots": "folder"},
        ],
    )
    def test_fields_that_agree(self, changes):
        config = default()
        config.update_from_flattened_dict(changes)
        validate(config)


class TestFiles:
    @pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
    def test_every_config_file_is_valid(self, path):
        config = load(path.stem)
        validate(config)
        assert config.name
        assert len(config.selection.runs) > 0
        for name in config.selection.runs:
            resolved_run(config, name)

    def test_the_settings_of_the_paper(self):
        """Section 5.1 and the official code; see docs/design/fidelity.md for what differs."""
        config = load("math_pythia70m")
        for model in (config.proxy, config.target):
            assert (model.train.learning_rate, model.train.warmup_fraction) == (2e-5, 0.03)
            assert (model.train.batch_size, model.train.epochs) == (128, 3.0)
            assert (model.train.weight_decay, model.train.clip_norm) == (0.0, 1.0)
            assert (model.train.beta1, model.train.beta2) == (0.9, 0.999)
            assert (model.train.schedule, model.train.loss) == ("cosine", "token")
        assert config.tokenize.max_length == 512
        assert config.trajectories.every == 500
        assert config.clustering.num_clusters == 100
        assert config.selection.runs.s2l.method == "s2l"

    def test_one_that_is_not_there(self):
        with pytest.raises(InputError, match=r"no config 'nosuch' .* quickstart"):
            load("nosuch")


def test_fields_and_methods_are_known_without_jax():
    """`launch.py --help` and a bad override answer at once."""
    import subprocess
    import sys

    heavy = {"jax", "flax", "transformers", "torch", "tensorflow", "sympy", "pyarrow"}
    program = (
        "import sys, s2l_jax.config as c; c.describe(); c.validate(c.load('compare_methods')); "
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    folder = REPOSITORY
    assert subprocess.run([sys.executable, "-c", program], cwd=folder).returncode == 0
