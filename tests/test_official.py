"""Configurations of the official S2L code as configs of ours."""

import runpy
import subprocess
import sys

import pytest
import yaml

from s2l_jax.config import load, validate
from s2l_jax.errors import InputError
from s2l_jax.official import convert, main, read_yml

# The settings of the two files that it comes with (BigML-CS-UCLA/S2L, configs/).
TRAIN = {
    "optim": "adamw_torch",
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 8,
    "save_strategy": "steps",
    "save_steps": 500,
    "learning_rate": 2.0e-5,
    "weight_decay": 0.0,
    "warmup_ratio": 0.03,
    "lr_scheduler_type": "cosine",
    "logging_steps": 1,
    "fsdp": "full_shard auto_wrap",
    "bf16": True,
    "group_by_length": True,
    "seed": 42,
}
FULL = {
    "full_data_path": "TIGER-Lab/MathInstruct",
    "model_name_or_path": "EleutherAI/pythia-70m-deduped",
    "cache_dir": "/data/models",
    "model_max_length": 512,
    "schedule_name": "Full",
    "result_dir_name": "proxy",
    "train_args": TRAIN | {"save_total_limit": 12},
}
S2L = FULL | {
    "model_name_or_path": "microsoft/Phi-3-mini-4k-instruct",
    "schedule_name": "S2L",
    "result_dir_name": "chosen",
    "train_args": TRAIN | {"save_total_limit": 2},
    "init_label_num": 131020,
    "n_round": 0,
    "n_query": 131020,
    "n_components": 100,
    "ref_model_path": "res/proxy/output",
}


def config_of(converted, tmp_path):
    (tmp_path / "mine.py").write_text(converted.source("theirs.yml"))
    config = runpy.run_path(str(tmp_path / "mine.py"))["get_config"]()
    validate(config)
    return config


@pytest.mark.parametrize(
    ("values", "ours", "groups"),
    [
        (FULL, "math_pythia70m", ("proxy", "trajectories")),
        (S2L, "math_phi3_mini", ("clustering", "target")),
    ],
)
def test_the_published_files_are_the_configs_that_follow_them(values, ours, groups, tmp_path):
    """But for what says only how: where a checkpoint is taken, what is logged, what memory is spared."""
    config, expected = config_of(convert(values), tmp_path), load(ours)
    for group in (*groups, "tokenize"):
        found, known = (each[group].to_dict() for each in (config, expected))
        for values_of in (found, known):
            values_of.pop("path", None)
            for name in ("log_every", "remat"):
                values_of.get("train", {}).pop(name, None)
        assert found == known
    assert config.pool.path == expected.pool.path
    assert config.seed == 42


def test_a_selection_and_its_target(tmp_path):
    config = config_of(convert(S2L), tmp_path)
    assert config.selection.budget == 131020
    assert (config.selection.stratify_by, config.selection.min_cluster_size) == ("source", 2)
    assert config.trajectories.path == "res/proxy/output"
    assert list(config.selection.runs) == ["s2l"]
    assert config.selection.drop_unlearnt == 0.0


def test_what_has_no_counterpart_is_said_with_the_reason(tmp_path):
    values = S2L | {"num_loss_ckpts": 6, "distance": "cosine", "something": 1}
    notes = convert(values).notes
    for name in (
        "fsdp",
        "group_by_length",
        "n_query",
        "num_loss_ckpts",
        "distance",
        "cache_dir",
        "something",
    ):
        assert sum(name in note.partition(":")[0] for note in notes) == 1, name
    assert not any("optim" in note or "save_strategy" in note for note in notes)
    for optimiser in ("adafactor",):
        changed = values | {"train_args": TRAIN | {"optim": optimiser}}
        assert any("optim: 'adafactor'" in note for note in convert(changed).notes)
    source = convert(values).source("theirs.yml")
    assert all(f"# * {note}\n" in source for note in notes)


def test_what_a_file_leaves_out_is_as_the_trainer_has_it(tmp_path):
    config = config_of(convert(FULL | {"train_args": None}), tmp_path)
    train = config.proxy.train
    assert (train.learning_rate, train.schedule, train.warmup_fraction) == (5e-5, "linear", 0.0)
    assert (train.epochs, train.batch_size, train.dtype) == (3.0, 32, "float32")
    assert config.trajectories.every == 500


def test_what_the_trainer_defaults_to_is_still_so():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from s2l_jax.official import _TRAINER

    defaults = transformers.TrainingArguments("unused")
    for name, value in _TRAINER.items():
        if hasattr(defaults, name):  # some have been renamed since
            assert (getattr(defaults, name) or 0) == value, name


def test_numbers_that_yaml_reads_as_text(tmp_path):
    values = yaml.safe_load(
        "learning_rate: 2e-5\nmax_steps: 40\nsave_steps: 20\nlr_scheduler_type: constant\nwarmup_ratio: 0.1"
    )
    assert values["learning_rate"] == "2e-5"
    train = config_of(convert(FULL | {"train_args": values}, processes=1), tmp_path).proxy.train
    assert (train.learning_rate, train.steps, train.schedule) == (2e-5, 40, "constant")
    assert train.warmup_fraction == 0.0
    assert train.batch_size == 8


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("data/mimic_train.jsonl", {"tokenize.prompt": "radiology_official"}),
        ("starmpcc/Asclepius-Synthetic-Clinical-Notes", {"pool.fields.input": "note"}),
        ("owner/name", {"pool.fields.messages": "conversations"}),
        ("data/pool.json", {"pool.fields.messages": "messages"}),
    ],
)
def test_pools(path, fields, tmp_path):
    config = config_of(convert(FULL | {"full_data_path": path}), tmp_path)
    for name, value in fields.items():
        group, field = name.rsplit(".", 1)
        found = config
        for part in group.split("."):
            found = found[part]
        assert found[field] == value


def test_a_file_whose_input_is_the_instruction(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text('{"input": "2 + 3?", "output": "5", "source": "sums"}\n')
    fields = config_of(convert(FULL | {"full_data_path": str(file)}), tmp_path).pool.fields
    assert (fields.instruction, fields.input) == ("input", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule_name": "Random"}, r"schedule_name: 'Random' is not known; .* Full and S2L"),
        ({"schedule_name": None}, r"schedule_name is missing"),
        ({"init_label_num": "many"}, r"init_label_num: 'many' is no number"),
        ({"ref_model_path": None}, r"ref_model_path is missing"),
        ({"model_name_or_path": "google/flan-t5-base"}, r"models with an encoder"),
        ({"train_args": TRAIN | {"lr_scheduler_type": "polynomial"}}, r"lr_scheduler_type: 'polynomial'"),
        ({"train_args": TRAIN | {"learning_rate": -1}}, r"learning_rate=-1.0: must be above 0"),
        ({"train_args": ["fsdp"]}, r"train_args: \['fsdp'\] is no group"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(InputError, match=message):
        convert(S2L | change)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not YAML"), ("- a", "settings by name are needed, not list")]
)
def test_files_that_are_none(text, message, tmp_path, capsys):
    file = tmp_path / "theirs.yml"
    file.write_text(text)
    assert main([str(file)]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be read"):
        read_yml(str(tmp_path / "nowhere.yml"))


def test_the_command(tmp_path):
    (tmp_path / "theirs.yml").write_text(yaml.safe_dump(S2L))
    command = [sys.executable, "-m", "s2l_jax.official", str(tmp_path / "theirs.yml"), "--processes=2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    (tmp_path / "mine.py").write_text(ended.stdout)
    assert runpy.run_path(str(tmp_path / "mine.py"))["get_config"]().target.train.batch_size == 64
    assert "* train_args.fsdp: 'full_shard auto_wrap': mesh.fsdp" in ended.stderr
