"""A config of ours from a configuration of the official S2L code (BigML-CS-UCLA/S2L).

    python -m s2l_jax.official configs/pythia-70m-deduped_checkpoints.yml > mine.py
    python launch.py --config=mine.py --workdir=runs/mine

The config goes to standard output, and what has no counterpart to standard error and, as a
comment, into the config.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from s2l_jax.config import default, run, validate
from s2l_jax.errors import InputError

Values = dict[str, Any]

# What `transformers.TrainingArguments` are where a file leaves them out.
_TRAINER: Values = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "warmup_ratio": 0.0,
    "lr_scheduler_type": "linear",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "save_steps": 500,
    "logging_steps": 500,
    "bf16": False,
    "gradient_checkpointing": False,
    "seed": 42,
}
_SAME_NAME = {
    "num_train_epochs": "epochs",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "warmup_ratio": "warmup_fraction",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "epsilon",
    "max_grad_norm": "clip_norm",
}
_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
# Why a name needs no field here.
_NO_COUNTERPART = {
    "fsdp": "mesh.fsdp spreads weights over devices, by --config.mesh.fsdp=N",
    "fsdp_config": "weights are spread by name of their axes, not by layer class",
    "tf32": "train.dtype says what matrix products are",
    "group_by_length": "batches are drawn from the whole pool, and packed",
    "full_determinism": "runs repeat on one machine by design",
    "per_device_eval_batch_size": "nothing is evaluated while training",
    "eval_strategy": "nothing is evaluated while training",
    "evaluation_strategy": "nothing is evaluated while training",
    "optim": "the optimiser is AdamW",
    "save_strategy": "checkpoints are by steps",
    "fp16": "use bf16",
}
_EXPECTED = {
    "optim": ("adamw_torch", "adamw_torch_fused"),
    "save_strategy": ("steps",),
    "eval_strategy": ("no", False),
    "evaluation_strategy": ("no", False),
    "fp16": (False,),
}
_ASCLEPIUS = {"instruction": "question", "input": "note", "output": "answer", "source": "task"}


@dataclasses.dataclass
class Converted:
    """Fields of a config by dotted names, whether it has a run of S2L, and what has no counterpart."""

    fields: Values = dataclasses.field(default_factory=dict)
    selects: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        """Raise an InputError if the config that they make is none."""
        config = default()
        config.update_from_flattened_dict(self.fields)
        if self.selects:
            config.selection.runs.s2l = run(method="s2l")
        validate(config)

    def source(self, name: str) -> str:
        """The config as a Python file; `name` is that of the file that it came from."""
        lines = [f'"""As {name} of the official S2L code has it; made by s2l_jax.official."""', ""]
        lines += ["from ml_collections import ConfigDict", ""]
        lines += [f"from s2l_jax.config import default{', run' if self.selects else ''}", ""]
        if self.notes:
            lines += ["# Without a counterpart here:", *(f"# * {note}" for note in self.notes), ""]
        lines += ["", "def get_config() -> ConfigDict:", "    config = default()"]
        lines += [f"    config.{field} = {value!r}" for field, value in self.fields.items()]
        if self.selects:
            lines.append('    config.selection.runs.s2l = run(method="s2l")')
        return "\n".join([*lines, "    return config", ""])


def convert(values: Values, *, processes: int = 4) -> Converted:
    """The config that does what a parsed yml file of the official code says.

    Args:
      values: its content. schedule_name "Full" becomes a proxy, measured wherever that code keeps a
        checkpoint; "S2L" a selection from its losses, and the target.
      processes: that it was to be started with (torchrun --nproc_per_node); the file does not say.

    Raises:
      InputError: what is needed is missing or of a kind that there is not here.
    """
    found, left = Converted(), dict(values)
    schedule = _take(left, "schedule_name")
    if schedule not in ("Full", "S2L"):
        raise InputError(f"schedule_name: {schedule!r} is not known; the official code has Full and S2L.")
    model, path = _take(left, "model_name_or_path"), _take(left, "full_data_path")
    if "t5" in model:
        raise InputError(f"model_name_or_path: {model}: models with an encoder are not supported.")
    what = "proxy" if schedule == "Full" else "target"
    found.fields["name"] = left.pop("result_dir_name", schedule.lower())
    _pool(path, found)
    found.fields["tokenize.boundary"] = "official"
    found.fields["tokenize.max_length"] = _take(left, "model_max_length")
    found.fields[f"{what}.checkpoint"] = model
    arguments = left.pop("train_args", None) or {}
    if not isinstance(arguments, dict):
        raise InputError(f"train_args: {arguments!r} is no group of settings.")
    _train(dict(arguments), what, processes, found)
    if schedule == "S2L":
        _selection(left, found)
    else:
        found.fields["trajectories.every"] = _number(_TRAINER | arguments, "save_steps", int)
    if cache := left.pop("cache_dir", None):
        found.notes.append(f"cache_dir: {cache}: set the environment's HF_HUB_CACHE")
    if "seed" in left:
        found.notes.append(f"seed: {left.pop('seed')}: that code reads it nowhere; train_args.seed counts")
    found.notes += [f"{name}: {value!r}" for name, value in left.items()]
    found.check()
    return found


def _pool(path: str, found: Converted) -> None:
    fields = found.fields
    fields["pool.path"] = path
    fields["tokenize.prompt"] = "radiology_official" if "mimic" in path else "alpaca"
    if "Asclepius" in path:
        fields |= {f"pool.fields.{role}": name for role, name in _ASCLEPIUS.items()}
    elif path.endswith(".jsonl"):
        if "instruction" not in _first_row(path):
            fields |= {"pool.fields.instruction": "input", "pool.fields.input": ""}
        beside = path.replace("train", "validate")
        found.notes.append(
            f"{beside}: that code evaluates the loss of its rows; --config.evaluation.path={beside} does"
        )
    elif not path.endswith(".json") and "MathInstruct" not in path:
        fields["pool.fields.messages"] = "conversations"


def _first_row(path: str) -> Values:
    """Of a file that is here; of others what most rows have."""
    if not pathlib.Path(path).exists():
        return {"instruction": ""}
    with open(path, encoding="utf-8") as file:
        try:
            row = json.loads(file.readline())
        except ValueError as error:
            raise InputError(f"{path}:1: not a JSON object ({error}).") from error
    return row if isinstance(row, dict) else {}


def _train(given: Values, what: str, processes: int, found: Converted) -> None:
    known, train = _TRAINER | given, f"{what}.train"
    fields = found.fields
    for name, field in _SAME_NAME.items():
        fields[f"{train}.{field}"] = _number(known, name)
    if (steps := _number(known, "max_steps", int)) > 0:
        fields[f"{train}.steps"] = steps
    schedule = known["lr_scheduler_type"]
    if schedule not in _SCHEDULES:
        raise InputError(
            f"train_args.lr_scheduler_type: {schedule!r} is not known here; there are "
            f"{', '.join(_SCHEDULES)}."
        )
    fields[f"{train}.schedule"] = _SCHEDULES[schedule]
    if schedule == "constant":  # which has no warm-up there
        fields[f"{train}.warmup_fraction"] = 0.0
    rows, times = (
        _number(known, name, int) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    fields[f"{train}.batch_size"] = rows * times * processes
    found.notes.append(
        f"the batch is {rows} rows x {times} microbatches x {processes} processes, a number that the file "
        f"does not say (--processes); {train}.accumulation splits it where memory is short"
    )
    fields[f"{train}.dtype"] = "bfloat16" if known["bf16"] else "float32"
    fields[f"{train}.remat"] = "full" if known["gradient_checkpointing"] else "none"
    fields[f"{train}.checkpoint_every"] = _number(known, "save_steps", int)
    fields[f"{train}.log_every"] = max(1, _number(known, "logging_steps", int))
    fields["seed"] = _number(known, "seed", int)
    if limit := given.pop("save_total_limit", None):
        if what == "target":
            fields["target.train.keep_checkpoints"] = limit
        else:
            found.notes.append(
                f"train_args.save_total_limit: {limit}: that code measures the checkpoints that it keeps; "
                "here each is measured as it comes"
            )
    for name, value in given.items():
        if name not in _TRAINER and value not in _EXPECTED.get(name, ()):
            why = _NO_COUNTERPART.get(name)
            found.notes.append(f"train_args.{name}: {value!r}" + (f": {why}" if why else ""))


def _selection(left: Values, found: Converted) -> None:
    fields = found.fields
    found.selects = True
    fields["selection.budget"] = _number(left, "init_label_num", int)
    fields["clustering.num_clusters"] = _number(left, "n_components", int)
    fields["selection.stratify_by"] = "source"
    fields["selection.min_cluster_size"] = 2
    fields["target.match_by"] = "epochs"
    fields["trajectories.path"] = path = _take(left, "ref_model_path")
    found.notes.append(
        f"ref_model_path: {path} is to hold checkpoint-*/losses.pt; where it has weights alone, set "
        f"trajectories.checkpoints={path}/checkpoint-* instead of trajectories.path, or trajectories.path "
        "to the store of a proxy that was trained here"
    )
    for name in ("init_label_num", "n_components"):
        left.pop(name)
    for name in ("n_round", "n_query"):
        if name in left:
            found.notes.append(f"{name}: {left.pop(name)}: that code chooses once, and does not read it")
    if (distance := left.pop("distance", "euclidean")) != "euclidean":
        found.notes.append(f"distance: {distance!r}: that code reads it, and clusters by the Euclidean one")
    if (count := left.pop("num_loss_ckpts", -1)) > -1:
        found.notes.append(
            f"num_loss_ckpts: {count}: selection.runs.s2l.every=n takes each n-th column, from the n-th on; "
            "that code from the first on"
        )


def _take(values: Values, name: str) -> Any:
    if not (value := values.pop(name, None)):
        raise InputError(f"{name} is missing: not a configuration of the official S2L code.")
    return value


def _number(values: Values, name: str, kind: Callable[[Any], Any] = float) -> Any:
    try:
        return kind(values[name])  # YAML 1.1 has 2e-5, without a point, as text
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{name}: {values.get(name)!r} is no number.") from error


def read_yml(path: str) -> Values:
    """The parsed file.

    Raises:
      InputError: no such file, or none that YAML reads as settings by name.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: settings by name are needed, not {type(values).__name__}.")
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file; the status of the process."""
    parser = argparse.ArgumentParser(prog="python -m s2l_jax.official", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", help="yml file of the official code")
    parser.add_argument(
        "--processes", type=int, default=4, help="torchrun's --nproc_per_node, for the batch size (default 4)"
    )
    options = parser.parse_args(argv)
    try:
        found = convert(read_yml(options.config), processes=options.processes)
    except InputError as error:
        print(f"error: {options.config}: {error}", file=sys.stderr)
        return 2
    print(found.source(pathlib.Path(options.config).name), end="")
    print("\n".join(["Without a counterpart here:", *(f"* {note}" for note in found.notes)]), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
