"""The rows and prompts that a run evaluates its models on, as the config names them."""

from typing import Any

from s2l_jax.data.chat import CHAT
from s2l_jax.data.pool import FieldMap, PoolRow
from s2l_jax.evaluation.evaluate import FORMS
from s2l_jax.evaluation.metrics import check_metrics
from s2l_jax.evaluation.tasks.benchmark import Problem
from s2l_jax.evaluation.tasks.eval_task import EvalTask, find_tasks
from s2l_jax.evaluation.tasks.prompting import PromptBuilder, read_examples
from s2l_jax.training.run import Run


def tasks_of(run: Run) -> list[EvalTask]:
    """The benchmarks to evaluate on; none where there is no path to any.

    Raises:
      InputError: see `find_tasks`.
    """
    config = run.config.evaluation
    return find_tasks(config.benchmarks, config.path, config.answer_type)


def problems_of(run: Run, task: EvalTask) -> list[Problem]:
    """The rows of a task, up to `evaluation.limit`.

    Raises:
      InputError: a missing file or a bad row.
    """
    multi_turn = run.config.tokenize.prompt == CHAT
    return task.problems(limit=run.config.evaluation.limit, fields=_fields(run), multi_turn=multi_turn)


def prompt_builder(run: Run, task: EvalTask, tokenizer: Any, context: int) -> PromptBuilder:
    """What makes the prompts of a task, for a model with `context` tokens.

    Raises:
      InputError: too few solved examples, or bad rows among them.
    """
    config = run.config.evaluation

    def examples(program: bool) -> list[PoolRow]:
        shots = config.shots if program in FORMS[config.mode] else 0
        return read_examples(
            task.benchmark,
            config.shots_path,
            shots,
            program=program,
            seed=run.config.seed,
            fields=_fields(run),
        )

    return PromptBuilder(
        task.benchmark,
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
      InputError: see `tasks_of`, `problems_of`, `prompt_builder` and `PromptBuilder.prompts`; or a
        metric's package is missing.
    """
    if not (tasks := tasks_of(run)):
        return
    check_metrics(run.config.evaluation.metrics)
    model = run.model("target")
    for task in tasks:
        problems = problems_of(run, task)
        builder = prompt_builder(run, task, model.tokenizer, model.config.max_positions)
        for program in FORMS[run.config.evaluation.mode]:
            builder.prompts(problems, program=program)


def _fields(run: Run) -> FieldMap:
    return FieldMap(**run.config.pool.fields.to_dict())
