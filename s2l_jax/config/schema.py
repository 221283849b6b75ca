"""Every field of a run: default, type, unit, meaning and check; selection's are in `config_selection`."""

import math
import pathlib
import runpy
import textwrap
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.fields import Field, Value
from s2l_jax.config.fields import axis as _axis
from s2l_jax.config.fields import choice as _choice
from s2l_jax.config.fields import fraction as _fraction
from s2l_jax.config.fields import natural as _natural
from s2l_jax.config.fields import positive as _positive
from s2l_jax.config.rules import PROJECTIONS, check_runs, check_together, nearest
from s2l_jax.config.selection import BUDGETS, RUN_SCHEMA, SELECTION
from s2l_jax.errors import InputError
from s2l_jax.evaluation.grading.answer_types import ANSWER_TYPES

DTYPES = ("float32", "bfloat16")

_MODEL = {
    "checkpoint": Field("", "directory in Hugging Face layout, or a hub id"),
    "init": _choice("pretrained", ("pretrained", "random"), "start from the weights, or at random"),
    "model_config": Field("", "config.json for init='random'; empty: the one in `checkpoint`"),
    "tokenizer": Field("", "directory of the tokeniser; empty: that of `checkpoint`"),
}

_TRAIN = {
    "epochs": _positive(3.0, "passes over the rows trained on; not used when `steps` is set"),
    "steps": _natural(0, "optimiser steps; 0: by `epochs`"),
    "batch_size": _positive(128, "examples of an optimiser step"),
    "accumulation": _positive(1, "microbatches that a step's examples are split into"),
    "learning_rate": _positive(2e-5, "peak learning rate"),
    "schedule": _choice("cosine", ("cosine", "linear", "constant"), "decay after the warm-up"),
    "warmup_fraction": _fraction(0.03, "share of the steps with linear warm-up"),
    "weight_decay": _natural(0.0, "AdamW's, on matrices and embeddings"),
    "beta1": _fraction(0.9, "AdamW's"),
    "beta2": _fraction(0.999, "AdamW's"),
    "epsilon": _positive(1e-8, "AdamW's"),
    "clip_norm": _natural(1.0, "global norm that gradients are clipped to; 0: no clipping"),
    "loss": _choice(
        "token", ("token", "example"), "mean over a step's response tokens, or over its examples"
    ),
    "pack": Field(True, "several examples to a row; the step's gradient is the same either way"),
    "dtype": _choice("bfloat16", DTYPES, "of matrix products; parameters and sums are float32"),
    "remat": _choice(
        "none",
        ("none", "dots", "full"),
        "memory for time: keep all activations, only those of projections, or only each layer's input",
    ),
    "checkpoint_every": _positive(500, "steps between checkpoints"),
    "keep_checkpoints": _positive(2, "newest checkpoints kept"),
    "log_every": _positive(10, "steps between TensorBoard points"),
}

SCHEMA: dict[str, Any] = {
    "name": Field("", "names the experiment in the report"),
    "seed": _natural(0, "of initialisation, order, clustering and sampling"),
    "pool": {
        "path": Field(
            "synthetic",
            "file, glob, comma-separated files, hub dataset id, tfds:NAME, or 'synthetic'; "
            "empty: none, for imported trajectories",
        ),
        "format": _choice(
            "auto",
            ("auto", "jsonl", "json", "parquet", "hub", "tfds", "synthetic"),
            "of `path`; auto looks at prefix, suffix and disk",
        ),
        "split": Field("train", "of a hub dataset or a TFDS name"),
        "limit": _natural(0, "rows read; 0: all"),
        "on_bad_row": _choice("error", ("error", "skip"), "stop at a bad row, or skip and count"),
        "fields": {
            "instruction": Field("instruction", "field that holds the instruction"),
            "input": Field("input", "field that holds the input, where there is one"),
            "output": Field("output", "field that holds the response"),
            "messages": Field("messages", "field that holds a conversation, in rows that have one instead"),
            "source": Field("source", "field that names the row's source, where there is one"),
            "id": Field("", "field that holds a unique id; empty: ids are made from the content"),
        },
    },
    "tokenize": {
        "prompt": _choice(
            "alpaca",
            ("alpaca", "plain", "radiology", "chat"),
            "prompt template; chat: the tokeniser's own, the only one for several turns",
        ),
        "boundary": _choice(
            "separate",
            ("separate", "official"),
            "tokenise prompt and response apart, or joined as the official code does",
        ),
        "max_length": Field(512, "tokens kept of an example", lambda v: v >= 2, "2 or above"),
    },
    "mesh": {
        "data": _axis(-1, "devices that rows are spread over; -1: what remains"),
        "fsdp": _axis(1, "devices that rows and weights are spread over"),
        "tensor": _axis(1, "devices that heads, MLP and vocabulary are spread over"),
    },
    "attention": _choice(
        "auto",
        ("auto", "xla"),
        "auto: cuDNN's or splash attention on a GPU or TPU where it is exact and works; xla: never",
    ),
    "proxy": {
        **_MODEL,
        "train": _TRAIN,
        "keep": _choice(
            "none",
            ("none", "params"),
            "params: keep the parameters of each sweep, 4 bytes each, to sweep again without training",
        ),
    },
    "trajectories": {
        "path": Field("", "trajectories made elsewhere (.zarr, .npy, .npz); no proxy is trained"),
        "source": _choice(
            "sweep",
            ("sweep", "train"),
            "sweep: losses at the cadence; train: those of the training steps, one an epoch, at no cost",
        ),
        "snapshots": Field(
            "", "proxy/snapshots of another workdir, to sweep again with other rows or dtype; no training"
        ),
        "cadence": _choice(
            "every",
            ("every", "even", "log", "list"),
            "when to sweep: each `every` steps; `num_checkpoints` times, evenly or denser early; at `steps`",
        ),
        "every": _positive(500, "cadence='every': proxy steps between loss sweeps"),
        "num_checkpoints": _positive(12, "cadence='even' or 'log': sweeps, the last step's among them"),
        "steps": Field("", "cadence='list': proxy steps with commas between, such as 10,50,200"),
        "step_zero": Field(False, "also sweep before the first step"),
        "stop_when_stable": _natural(
            0,
            "end the proxy's training after as many sweeps in a row that hardly changed the clusters; 0: no",
        ),
        "stable_above": Field(
            0.95,
            "adjusted Rand index with the clusters before that counts as hardly changed",
            lambda v: 0 < v < 1,
            "above 0 and below 1",
        ),
        "slice_count": _natural(0, "rows whose losses are tracked, drawn source by source; 0: all"),
        "slice_fraction": Field(
            1.0, "the same as a share of the pool's rows", lambda v: 0 < v <= 1, "above 0 and at most 1"
        ),
        "slice_ids": Field("", "the same from a file of row ids (.npy, or text with one on each line)"),
        "dtype": _choice("float32", DTYPES, "of matrix products in sweeps"),
        "batch_tokens": _natural(0, "tokens a device sweeps at a time; 0: 1024 on CPUs, 16384 elsewhere"),
        "pinned_mb": _positive(4096, "MB of device memory the packed pool may keep; above, streamed"),
    },
    "clustering": {
        "num_clusters": _positive(100, "K; of each source under stratify_by='source'"),
        "compare": Field("", "numbers of clusters to compare in the report, with commas between: 25,50,100"),
    },
    "selection": SELECTION,
    "target": {
        **_MODEL,
        "train": _TRAIN,
        "match": _choice(
            "steps",
            ("steps", "epochs"),
            "each subset gets the steps the full pool would, or the same number of epochs",
        ),
        "lora": {
            "rank": _natural(0, "of adapters beside frozen weights (LoRA); 0: all weights are trained"),
            "alpha": _positive(16.0, "adapters are scaled by alpha / rank"),
            "dropout": _fraction(0.0, "of the adapters' input while training"),
            "projections": Field("all", f"comma-separated: {', '.join(PROJECTIONS)}; all: those there are"),
            "export": _choice(
                "merged",
                ("merged", "adapter"),
                "merged: a whole model in target/<name>/hf; adapter: for PEFT, in target/<name>/adapter",
            ),
        },
        "use_weights": Field(False, "weight examples by |C_k| / R_k; needs train.loss='example'"),
        "export_dtype": _choice("float32", DTYPES, "of the weights in target/<name>/hf"),
    },
    "evaluation": {
        "path": Field(
            "",
            "held-out file in the pool's schema, or 'synthetic'; with `benchmarks`, the folder or file of "
            "their rows, or 'hub'; empty: no evaluation",
        ),
        "benchmarks": Field(
            "",
            "comma-separated: gsm8k, math, numglue, svamp, mathematics, simuleq, pool; NAME=PATH for one "
            "that is not at `path`; empty: the rows of `path` as they are",
        ),
        "limit": _natural(0, "rows evaluated of each benchmark, drawn at random; 0: all"),
        "mode": _choice(
            "text",
            ("text", "program", "hybrid"),
            "ask for a worked answer; for a program, which is run; or for a program and, where that fails, "
            "a worked answer",
        ),
        "run_programs": Field(
            False, "run responses that are programs, in a sandbox; what it holds back is in docs/security.md"
        ),
        "shots": _natural(0, "solved examples before each question"),
        "shots_path": Field(
            "",
            "where examples are drawn from: a training file or folder like `path`, a file in the pool's "
            "schema, or 'hub'; empty: a few written for each benchmark",
        ),
        "answer_type": _choice(
            "any",
            tuple(ANSWER_TYPES),
            "how answers to rows in the pool's schema are compared; exact: as text, after the last ####",
        ),
        "metrics": Field(
            "accuracy",
            "comma-separated: accuracy; for summaries bleu, rouge and bertscore (docs/clinical.md)",
        ),
        "bertscore_model": Field(
            "", "of metric bertscore: a hub id or a directory; empty: bert-score's default"
        ),
        "max_new_tokens": _positive(256, "longest answer"),
        "batch_size": _positive(64, "prompts answered together"),
        "dtype": _choice("float32", DTYPES, "of matrix products"),
        "temperature": _natural(0.0, "of answers drawn at random; 0: the likeliest token (greedy)"),
        "top_k": _natural(0, "draw among the k likeliest tokens; 0: all"),
        "top_p": Field(
            1.0,
            "draw among the likeliest tokens that together reach this probability",
            lambda v: 0 < v <= 1,
            "above 0 and at most 1",
        ),
        "stop": Field("", r"texts that end an answer, with | between; \n is a line break"),
    },
}


def default() -> ConfigDict:
    """A config with every field at its default and no selection runs; configs/*.py change it."""
    config = ConfigDict(_defaults(SCHEMA))
    config.selection.runs = ConfigDict()
    return config


def run(**fields: Value) -> ConfigDict:
    """One entry of `selection.runs`, as in `config.selection.runs.s2l = run(method="s2l")`.

    Raises:
      InputError: an unknown field.
    """
    entry = ConfigDict(_defaults(RUN_SCHEMA))
    for name, value in fields.items():
        if name not in RUN_SCHEMA:
            raise InputError(f"selection run: no field {name!r}{nearest(name, RUN_SCHEMA)}")
        entry[name] = value
    return entry


def load(name: str) -> ConfigDict:
    """The config of a file beside this package: configs/<name>.py.

    Raises:
      InputError: no such file; lists those there are.
    """
    folder = pathlib.Path(__file__).parents[2] / "configs"
    if not (folder / f"{name}.py").exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.py")))
        raise InputError(f"no config {name!r} in {folder}; there are: {known}.")
    return runpy.run_path(str(folder / f"{name}.py"))["get_config"]()


def validate(config: ConfigDict) -> None:
    """Check names, types and values of every field, and that they agree with each other.

    What depends on the pool's size or the devices is checked when those are known.

    Raises:
      InputError: names the first bad field, its value and what it may be.
    """
    values = config.to_dict()
    runs = values["selection"].pop("runs", {}) if isinstance(values.get("selection"), dict) else {}
    _check_fields(values, SCHEMA, "")
    if not isinstance(runs, dict):
        raise InputError(f"selection.runs={runs!r}: needs a group of runs by name.")
    for name, entry in runs.items():
        if not name or set(name) - set(_NAME_CHARACTERS):
            raise InputError(f"selection.runs.{name}: a run is named in letters, digits, '_', '-' and '+'.")
        _check_fields(entry, RUN_SCHEMA, f"selection.runs.{name}.")
    check_together(values)
    check_runs(values["selection"], runs)


def resolved_run(config: ConfigDict, name: str) -> dict[str, Value]:
    """One selection run with what it inherits filled in."""
    entry = dict(config.selection.runs[name])
    if not any(entry[name] for name in BUDGETS):
        entry.update({name: config.selection[name] for name in BUDGETS})
    # Of the ways to say a budget, the one that is set beside `budget`, or `budget`.
    if entry["budget_fraction"] or entry["budget_tokens"]:
        entry["budget"] = 0
    entry["seed"] = config.seed if entry["seed"] < 0 else entry["seed"]
    entry["num_clusters"] = entry["num_clusters"] or config.clustering.num_clusters
    if entry["stratify_by"] == "inherit":
        entry["stratify_by"] = config.selection.stratify_by
    return entry


def describe() -> str:
    """All fields with defaults and meanings, for `--help`."""
    lines = []
    for path, field in _walk(SCHEMA):
        lines.append(_describe_field(path, field))
    lines.append("\nEach entry selection.runs.<name> has:")
    lines += [_describe_field(f"selection.runs.<name>.{n}", f) for n, f in RUN_SCHEMA.items()]
    return "\n".join(lines)


def nearest_field(path: str) -> str | None:
    """`; did you mean ...?` (or `.`) for a dotted path that is no field; None for one that is."""
    known = [known for known, _ in _walk(SCHEMA)]
    parts = path.split(".")
    if parts[:2] == ["selection", "runs"]:
        if len(parts) != 4:
            return f"; a run's fields are selection.runs.<name>.{', .'.join(RUN_SCHEMA)}."
        return None if parts[3] in RUN_SCHEMA else nearest(parts[3], RUN_SCHEMA)
    if path in known:
        return None
    inner = [name for name in known if name.startswith(f"{path}.")]
    return f"; it is a group, with {inner[0]!r} in it." if inner else nearest(path, known)


def meaning(path: str) -> str:
    """What a field may be and what it means, for a dotted path that is a field."""
    parts = path.split(".")
    field = RUN_SCHEMA[parts[3]] if parts[:2] == ["selection", "runs"] else dict(_walk(SCHEMA))[path]
    return f"{_article(type(field.default).__name__)}: {field.doc}"


_NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+"


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    return {k: _defaults(f) if isinstance(f, dict) else f.default for k, f in schema.items()}


def _walk(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Field]]:
    for name, field in schema.items():
        if isinstance(field, dict):
            yield from _walk(field, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _describe_field(path: str, field: Field) -> str:
    limits = f" ({field.allowed})" if field.allowed else ""
    text = f"{field.doc}{limits}"
    head = f"  {path} = {field.default!r}"
    return f"{head}\n{textwrap.indent(textwrap.fill(text, 84), '      ')}"


def _check_fields(values: Any, schema: dict[str, Any], prefix: str) -> None:
    if not isinstance(values, dict):
        raise InputError(f"{prefix.rstrip('.')}: {values!r} is not a group of fields.")
    for name in values:
        if name not in schema:
            raise InputError(f"{prefix}{name}: no such field{nearest(name, schema)}")
    for name, field in schema.items():
        path = prefix + name
        if name not in values:
            raise InputError(f"{path}: missing; start the config from s2l_jax.config.default().")
        value = values[name]
        if isinstance(field, dict):
            _check_fields(value, field, f"{path}.")
            continue
        kind = type(field.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise InputError(f"{path}={value!r}: needs {_article(kind.__name__)}.")
        if not field.check(value):
            raise InputError(f"{path}={value!r}: must be {field.allowed}.")


def _article(kind: str) -> str:
    return {"int": "a whole number", "float": "a number", "str": "text", "bool": "True or False"}[kind]
