"""The rows and prompts that a run evaluates its models on, as the config names them."""

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from s2l_jax.console import say
from s2l_jax.data.chat import CHAT
from s2l_jax.data.identity import data_identity
from s2l_jax.data.order import visit_order
from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.errors import InputError
from s2l_jax.evaluation.benchmarks import HUB, Benchmark, Problem, benchmark, read_problems, source_path
from s2l_jax.evaluation.metrics import check_metrics
from s2l_jax.evaluation.prompting import Asking, read_examples
from s2l_jax.training.models import open_model
from s2l_jax.training.run import Run

SYNTHETIC, POOL = "synthetic", "pool"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A benchmark that the config names, and where its rows are."""

    which: Benchmark
    path: str

    @property
    def identity(self) -> str:
        """Names and hashes of its files."""
        return identity_of(self.which, self.path)


def wanted(run: Run) -> list[Wanted]:
    """The benchmarks to evaluate on; none where there is no path to any.

    Raises:
      InputError: an unknown name, a name twice, or a name without a path beside names with one.
    """
    config = run.config.evaluation
    if not config.benchmarks:
        if not config.path:
            return []
        return [_wanted(run, SYNTHETIC if config.path == SYNTHETIC else POOL, config.path)]
    parts = [part.strip().partition("=")[::2] for part in config.benchmarks.split(",")]
    named = [(name, path or (SYNTHETIC if name == SYNTHETIC else config.path)) for name, path in parts]
    found = [_wanted(run, name, path) for name, path in named]
    for name, path in named:
        if sum(name == other for other, _ in named) > 1:
            raise InputError(f"evaluation.benchmarks: {name} is named twice.")
        if not path and any(p for _, p in named):
            raise InputError(
                f"evaluation.benchmarks: {name} has no path, while others have: set evaluation.path to the "
                f"folder of the others, or {name}=PATH, or {name}=hub."
            )
    return found if named[0][1] else []


def problems_of(run: Run, each: Wanted) -> list[Problem]:
    """The rows of a benchmark, up to `evaluation.limit`.

    Raises:
      InputError: a missing file or a bad row.
    """
    which, limit = each.which, run.config.evaluation.limit
    if which.name == SYNTHETIC:
        from s2l_jax.data.datasets import synthetic

        rows = [
            PoolRow(i, r["instruction"], r.get("input", ""), r["output"], r["source"], r, f"row {i}")
            for i, r in enumerate(synthetic.heldout_rows())
        ]
        problems = [Problem(row, row.output, worked=True) for row in rows]
    elif which.reader is None:
        multi_turn = run.config.tokenize.prompt == CHAT
        read = read_rows(each.path, fields=_fields(run), multi_turn=multi_turn)
        problems = [Problem(row, row.output, True, _label(row, "level"), _label(row, "type")) for row in read]
    else:
        problems = list(read_problems(which, each.path))
        if which.size and len(problems) != which.size:
            say(f"{which.name}: {len(problems):,} rows; the published test set has {which.size:,}")
    if limit and limit < len(problems):
        problems = [problems[i] for i in sorted(visit_order(np.arange(limit), len(problems), seed=0))]
    return problems


def asking_of(run: Run, each: Wanted, tokenizer: Any, context: int) -> Asking:
    """How the questions of a benchmark are asked.

    Raises:
      InputError: too few solved examples, or bad rows among them.
    """
    config = run.config.evaluation

    def examples(program: bool) -> list[PoolRow]:
        shots = (
            config.shots if config.mode in (("program", "hybrid") if program else ("text", "hybrid")) else 0
        )
        return read_examples(
            each.which, config.shots_path, shots, program=program, seed=run.config.seed, fields=_fields(run)
        )

    return Asking(
        each.which,
        run.config.tokenize.prompt,
        tokenizer,
        context,
        config.max_new_tokens,
        config.shots,
        examples(False),
        examples(True),
    )


def check_benchmarks(run: Run) -> None:
    """Find now what would stop the evaluation later: bad rows, and prompts that leave no room to answer.

    Raises:
      InputError: see `wanted`, `problems_of`, `asking_of` and `Asking.prompts`; or a metric's package is
        missing.
    """
    each = wanted(run)
    if not each:
        return
    check_metrics(metrics_of(run.config.evaluation))
    model = open_model(run, "target")
    for one in each:
        problems = problems_of(run, one)
        asking = asking_of(run, one, model.tokenizer, model.config.max_positions)
        for program in forms(run.config.evaluation):
            asking.prompts(problems, program=program)


def forms(config: ConfigDict) -> tuple[bool, ...]:
    """Whether a program is asked for, in the order of asking."""
    return {"text": (False,), "program": (True,), "hybrid": (True, False)}[config.mode]


def metrics_of(config: ConfigDict) -> list[str]:
    """Names of the metrics."""
    return [name.strip() for name in config.metrics.split(",")]


def identity_of(which: Benchmark, path: str) -> str:
    """Names and hashes of the files that a benchmark's rows are read from, or what names them."""
    if which.reader is not None and path != HUB:
        path = source_path(which, path)
    return data_identity(path)


def _wanted(run: Run, name: str, path: str) -> Wanted:
    which = benchmark(name)
    if which.reader is None:
        # The embedded data's answers are exact texts.
        answer_type = "exact" if name == SYNTHETIC else run.config.evaluation.answer_type
        which = dataclasses.replace(which, answer_type=answer_type)
    return Wanted(which, path)


def _fields(run: Run) -> FieldMap:
    return FieldMap(**run.config.pool.fields.to_dict())


def _label(row: PoolRow, name: str) -> str:
    value = row.original.get(name) if isinstance(row.original, dict) else None
    return value if isinstance(value, str) else ""
