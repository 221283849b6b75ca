"""A small config with a run of every method that has options, and another value for each of its fields."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from s2l_jax.config import find_field, run
from s2l_jax.config.runs import BUDGETS, find_method, options, run_fields
from s2l_jax.config.schema import walk
from s2l_jax.data.datasets import synthetic
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.pipeline import run as pipeline_run
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.plan import STAGES
from tests.support.pipeline_kills import small_config

ROWS = 60
# A run of the finished workdir for every method that has options; those of no target are cheap.
RUNS = {
    "s2l": {},
    "small": {"method": "s2l", "budget": 10},
    "random": {"train_target": True},
    "less": {"budget": 10},
    "semdedup": {},
    "facility_location": {},
    "diverse_evol": {"initial": 5},
    "forgetting": {},
    "cartography": {},
    "early_loss": {},
    "given": {},
}
# Values where what the type and the check allow is not enough; {} stands for the folder of `files`.
VALUES = {
    "name": "another",
    "wandb": "another",
    "pool.path": "{}/other.jsonl",
    "pool.split": "test",
    "pool.fields.instruction": "other",
    "pool.fields.input": "other",
    "pool.fields.output": "other",
    "pool.fields.messages": "talk",
    "pool.fields.source": "other",
    "pool.fields.id": "other",
    "pool.fields.system": "other",
    "pool.fields.history": "other",
    "pool.fields.tools": "other",
    "pool.fields.ignore": ("another",),
    "tokenize.prompt": "radiology",
    "mesh.data": 8,
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
    **{f"{model}.checkpoint": "{}/model" for model in ("proxy", "target")},
    **{f"{model}.model_config": "{}/model/config.json" for model in ("proxy", "target")},
    **{f"{model}.tokenizer": "{}/model" for model in ("proxy", "target")},
    "trajectories.path": "{}/losses.npy",
    "trajectories.snapshots": "{}",
    "trajectories.checkpoints": ("{}/checkpoint-*",),
    "trajectories.steps": (1, 2),
    "trajectories.slice_ids": "{}/ids.npy",
    "trajectories.slice_count": 40,
    "trajectories.stable_above": 0.5,
    "clustering.compare": (2,),
    "selection.path": "{}/other.npy",
    "selection.exports": ("jsonl", "messages"),
    "selection.gradients.projections": ("query",),
    "selection.queries": "{}/other.jsonl",
    "target.lora.projections": ("query",),
    "evaluation.path": "{}/other.jsonl",
    "evaluation.benchmarks": ("pool", "synthetic"),
    "evaluation.shots_path": "{}/other.jsonl",
    "evaluation.metrics": ("bleu",),
    "evaluation.bertscore_model": "none",
    "evaluation.stop": ("END",),
    "selection.runs.*.method": "full",
    "selection.runs.*.prefix_of": "s2l",
    "selection.runs.*.seeds": (0, 3),
    "seeds": (0, 3),
    "selection.budgets": ("7", "9"),
    "report.baseline": "random",
    "analysis.run": "small",
    "selection.runs.*.proxy": "other",
    "selection.runs.*.stratify_by": "none",
    "selection.runs.*.drop_unlearnt": 0.2,
    "selection.runs.*.layer": 1,
    "selection.runs.*.checkpoint": "first",
    "selection.runs.*.init": "random",
    "selection.runs.*.restarts": 3,
    "selection.runs.*.tolerance": 0.1,
}
# What must change with them, for a config that is valid.
TOGETHER = {
    "trajectories.steps": {"trajectories.cadence": "list"},
    "trajectories.cadence": {"trajectories.cadence": "even"},
    "evaluation.mode": {"evaluation.run_programs": True, "evaluation.shots": 0, "evaluation.shots_path": ""},
}
# What the difference names where it is not the field itself.
NAMED = {
    "trajectories.path": "trajectories.sha256: ",
    "trajectories.slice_count": "trajectories.slice.rows: ",
    "trajectories.slice_fraction": "trajectories.slice.rows: ",
    "trajectories.slice_ids": "trajectories.slice.rows: ",
    **{f"selection.{name}": f".{name}: " for name in BUDGETS},
    "selection.stratify_by": ".stratify_by: ",
    "selection.min_cluster_size": ".min_cluster_size: ",
    "selection.drop_unlearnt": ".drop_unlearnt: ",
    **{f"clustering.{name}": f".{name}: " for name in ("init", "restarts", "max_iterations", "tolerance")},
}


def whose(option):
    """A run that has an option."""
    if option == "prefix_of":
        return "small"
    having = [
        name
        for name, entry in RUNS.items()
        if option in options(find_method(entry.get("method", name)).by_features("trajectories"))
    ]
    return having[0] if having else "s2l"


FIELDS = [name for name, _ in walk()] + [f"selection.runs.{whose(name)}.{name}" for name in run_fields()]


def write_rows(path, rows):
    lines = [row | {"other": f"{row['instruction']} {n}", "talk": None} for n, row in enumerate(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_files(folder, checkpoint):
    """What the config names, and of each file another."""
    rows = [row for row in synthetic.heldout_rows() if len(row["instruction"]) < 60]
    write_rows(folder / "pool.jsonl", rows[:ROWS])
    write_rows(folder / "few.jsonl", rows[ROWS : ROWS + 6])
    write_rows(folder / "other.jsonl", rows[-6:])
    np.save(folder / "given.npy", np.arange(5))
    np.save(folder / "other.npy", np.arange(6))
    np.save(folder / "losses.npy", np.random.default_rng(0).gamma(2, 1, (ROWS, 2)).astype(np.float32))
    shutil.copytree(checkpoint, folder / "model")
    shutil.copytree(checkpoint, folder / "checkpoint-2")


def config_of(files, checkpoint):
    """The config, over the files of `write_files`."""
    config = small_config(str(checkpoint))
    config.pool.update(path=str(files / "pool.jsonl"), limit=0)
    config.clustering.num_clusters = 2
    config.trajectories.update(every=2, num_checkpoints=2)
    for model in (config.proxy, config.target):
        model.train.update(steps=4, batch_size=16, loss="example")
    config.selection.update(budget=20, queries=str(files / "few.jsonl"), path=str(files / "given.npy"))
    config.selection.gradients.update(rank=2, warmup_fraction=0.5, epochs=1, batch_size=16, dims=16)
    few = str(files / "few.jsonl")
    config.evaluation.update(path=few, limit=4, max_new_tokens=2, shots=1, shots_path=few)
    config.proxies.other = ConfigDict({"proxy": {"train": {"steps": 2}}})  # of use to runs that name it
    config.analysis.update(dims=16, checkpoints=2)
    config.selection.runs = {}
    for name, fields in RUNS.items():
        config.selection.runs[name] = run(**{"method": name, "train_target": False} | fields)
    return config


def another(name, value, files):
    """A valid value that is not the one there is."""
    field = find_field(name)
    key = f"selection.runs.*.{name.rpartition('.')[2]}" if name.startswith("selection.runs.") else name
    if key in VALUES:
        found = VALUES[key]
        if isinstance(found, tuple):
            return tuple(each.format(files) if isinstance(each, str) else each for each in found)
        return found.format(files) if isinstance(found, str) else found
    if isinstance(value, bool):
        return not value
    if field.choices:
        return next(choice for choice in field.choices if choice != value)
    kind = type(field.default)
    return next(v for v in (kind(value + 1), kind(value + 0.01), value / 2) if v != value and field.check(v))


def changed(config, name, files):
    flat = config.copy_and_resolve_references()
    changes = {name: another(name, get(config, name), files)} | TOGETHER.get(name, {})
    flat.update_from_flattened_dict(changes)
    return flat


def get(config, name):
    for part in name.split("."):
        config = config[part]
    return config


def content(workdir):
    """Every file and when it was written, but for those that each sitting writes."""
    own = ("config.json", "results.json", "report/")
    stamps = {str(f.relative_to(workdir)): f.stat().st_mtime_ns for f in workdir.rglob("*") if f.is_file()}
    return {name: stamp for name, stamp in stamps.items() if not name.startswith(own)}


def is_active(name, config):
    return find_field(name).is_active(get(config, name.rpartition(".")[0]) if "." in name else config)


@contextlib.contextmanager
def one_device_unless_more_are_named():
    """A mesh over as many of the devices as the config names; programs for one are compiled sooner."""

    def make(data, fsdp, tensor):
        return make_mesh(data, fsdp, tensor, devices=jax.devices()[: max(1, data) * fsdp * tensor])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_run, "make_mesh", make)
        yield


def finish(workdir, config, files):
    """Make all of a workdir but its page, and the last file that changed fields name."""
    run_pipeline(config, workdir, stages=STAGES[:-1], name="decides")
    ids = next((workdir / "pool").glob("*/ids.npy"))
    np.save(files / "ids.npy", np.load(ids)[: ROWS // 2])
