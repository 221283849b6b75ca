"""What is evaluated: benchmarks as they are named, each with the place of its rows."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from s2l_jax.console import say
from s2l_jax.data.identity import data_identity
from s2l_jax.data.order import visit_order
from s2l_jax.data.pool import FieldMap
from s2l_jax.errors import InputError
from s2l_jax.evaluation.grading.references import check_references
from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS, Benchmark, Problem
from s2l_jax.evaluation.tasks.benchmarks.pool import POOL
from s2l_jax.evaluation.tasks.benchmarks.synthetic import SYNTHETIC
from s2l_jax.evaluation.tasks.reading import read_problems, source_path


@dataclasses.dataclass(frozen=True)
class EvalTask:
    """A benchmark and where its rows are."""

    benchmark: Benchmark
    path: str

    @functools.cached_property
    def identity(self) -> str:
        """Names and hashes of the files that its rows are read from, or what names them."""
        own = self.benchmark.reader is not None
        return data_identity(source_path(self.benchmark, self.path) if own else self.path)

    def problems(self, *, limit: int, fields: FieldMap, multi_turn: bool) -> list[Problem]:
        """Its rows, see `read_problems`; `limit` of them, drawn at random, the same every time (0: all).

        Raises:
          InputError: as `read_problems`, or a reference that is not of the benchmark's answer type.
        """
        name, size = self.benchmark.name, self.benchmark.size
        problems = list(read_problems(self.benchmark, self.path, fields=fields, multi_turn=multi_turn))
        if size and len(problems) != size:
            say(f"{name}: {len(problems):,} rows; the published test set has {size:,}")
        places = [problem.row.place for problem in problems]
        check_references(self.benchmark.answer_type, [problem.reference for problem in problems], places)
        if limit and limit < len(problems):
            problems = [problems[i] for i in sorted(visit_order(np.arange(limit), len(problems), seed=0))]
        return problems


def find_tasks(names: Sequence[str], path: str, answer_type: str) -> list[EvalTask]:
    """The tasks of a run; none where there is no path to any.

    Args:
      names: NAME or NAME=PATH, NAME a benchmark's or "module:attribute" of one in a module of the user's;
        without any, the rows of `path` are evaluated as they are.
      path: of the benchmarks that are named without one.
      answer_type: of rows in the pool's schema.

    Raises:
      InputError: an unknown name, a benchmark twice, or one without a path beside others with one.
    """
    if not names:
        names = [SYNTHETIC.name if path == SYNTHETIC.name else POOL.name] if path else []
    tasks: list[EvalTask] = []
    for each in names:
        name, _, own_path = each.partition("=")  # a module's name has no "=", a path may
        benchmark = BENCHMARKS.find(name)
        if benchmark.reader is None and benchmark.embedded is None:
            benchmark = dataclasses.replace(benchmark, answer_type=answer_type)
        elsewhere = benchmark.name if benchmark.embedded else path
        tasks.append(EvalTask(benchmark, own_path or elsewhere))
    for task in tasks:
        name = task.benchmark.name
        if sum(name == other.benchmark.name for other in tasks) > 1:
            raise InputError(f"evaluation.benchmarks: {name} is named twice.")
        if not task.path and any(other.path for other in tasks):
            raise InputError(
                f"evaluation.benchmarks: {name} has no path, while others have: set evaluation.path to the "
                f"folder of the others, or {name}=PATH, or {name}=hub."
            )
    return [task for task in tasks if task.path]
