"""Stage `evaluation`: what the untuned target and every tuned one answer, graded, benchmark by benchmark."""

import functools
import hashlib
import json
from typing import Any

from etils import epath

from s2l_jax import artifacts, integrity, records
from s2l_jax.config import deciding
from s2l_jax.console import Progress
from s2l_jax.data.chat import CHAT
from s2l_jax.data.pool import FieldMap
from s2l_jax.errors import InputError
from s2l_jax.evaluation.by_choices import answer_by_choices, choice_examples, choice_likelihoods
from s2l_jax.evaluation.by_tests import answer_by_tests
from s2l_jax.evaluation.evaluate import FORMS, answer, predict, reference_losses, solution_losses
from s2l_jax.evaluation.execution.workers import check_confinement
from s2l_jax.evaluation.generation.kept_responses import KeptResponses
from s2l_jax.evaluation.generation.respond import respond
from s2l_jax.evaluation.generation.sampling import Sampling
from s2l_jax.evaluation.metrics import check_metrics
from s2l_jax.evaluation.predictions import PREDICTIONS, Response, write_predictions
from s2l_jax.evaluation.summary import benchmark_results, combine, in_words
from s2l_jax.evaluation.tasks.benchmark import Problem
from s2l_jax.evaluation.tasks.eval_task import EvalTask, find_tasks
from s2l_jax.evaluation.tasks.prompting import PromptBuilder, read_examples
from s2l_jax.models import weights
from s2l_jax.models.decoder import Decoder
from s2l_jax.parallel import processes
from s2l_jax.pipeline.plan import target_names
from s2l_jax.pipeline.stages.target import folder as target_folder
from s2l_jax.records import Record, stored_digests, stored_results, way_out
from s2l_jax.report.runs import UNTUNED
from s2l_jax.training.export import load_export
from s2l_jax.training.out_of_memory import explained
from s2l_jax.training.run import Run


def check_benchmarks(run: Run) -> None:
    """Find now what would stop the evaluation later.

    Raises:
      InputError: a benchmark without a path, bad rows, too few solved examples, prompts that leave no room to
        answer, a metric whose package is missing, or programs that this machine cannot confine.
    """
    if not (tasks := tasks_of(run)):
        return
    if run.config.evaluation.run_programs is True:
        check_confinement()
    check_metrics(run.config.evaluation.metrics)
    model = run.model("target")
    for task in tasks:
        problems = problems_of(run, task)
        builder = _prompt_builder(run, task, model.tokenizer, model.config.max_positions)
        for program in _forms(run, task):
            prompts = builder.prompts(problems, program=program)
        if task.benchmark.answered_by == "choices":
            tokens, choices = [p.tokens for p in prompts], [p.choices for p in problems]
            choice_examples(model.tokenizer, tokens, choices, model.config.max_positions)
        of_tests, by_programs = task.benchmark.answered_by == "tests", any(_forms(run, task))
        if (of_tests or by_programs) and not run.config.evaluation.run_programs:
            way_out = "leave it out" if of_tests else "evaluation.mode='text'"
            raise InputError(
                f"evaluation.benchmarks: {task.benchmark.name} runs the programs that the model writes: set "
                f"evaluation.run_programs=True once docs/design/security.md suits you, or {way_out}."
            )


def check_content(run: Run) -> None:
    """Raise an InputError if a model was evaluated on other rows than the config asks for."""
    for task in tasks_of(run):
        for name in _models_of(run):
            benchmark = task.benchmark.name
            where = f"evaluation/{name}/{benchmark}"
            records.check_content(folder(run, name) / benchmark, where, _settings(run, task, name))


def evaluate_all(run: Run) -> None:
    """Evaluate what is not evaluated yet; nothing when no benchmark has a path."""
    tasks = tasks_of(run)
    if not tasks:
        return
    for name in _models_of(run):
        # All settings are compared before the first answer; a record's time counts from when it is made.
        records = [_record(run, task, name) for task in tasks]
        for each in records:
            integrity.check(each.folder, stored_digests(each.folder), way_out(each.folder))
        if left := [task for task, each in zip(tasks, records, strict=True) if not each.done]:
            model, tokenizer = _model(run, name)
            for task in left:
                record = _record(run, task, name)
                with explained(run.config, "evaluation"), record.counting():
                    _evaluate_one(run, name, task, record, model, tokenizer)
            del model


def _record(run: Run, task: EvalTask, name: str) -> Record:
    """That of a model on one benchmark."""
    benchmark = task.benchmark.name
    where = f"evaluation/{name}/{benchmark}"
    return Record(folder(run, name) / benchmark, where, _settings(run, task, name))


def waiting(run: Run) -> list[str]:
    """The models that are not evaluated on all benchmarks yet."""
    benchmarks = [task.benchmark.name for task in tasks_of(run)]
    return [
        name
        for name in _models_of(run)
        if any(stored_results(folder(run, name) / benchmark) is None for benchmark in benchmarks)
    ]


def _models_of(run: Run) -> list[str]:
    """The models that are evaluated: the target as it came, and every tuned one."""
    return [name for name in (UNTUNED, *target_names(run.config)) if run.makes(f"evaluation/{name}")]


def folder(run: Run, name: str) -> epath.Path:
    """Where a model's predictions are, in a folder for each benchmark."""
    return run.workdir / "evaluation" / name


def gather(run: Run, name: str) -> tuple[dict[str, Any], dict[str, float]] | None:
    """A model's results over its finished benchmarks, and the seconds of each; None without any.

    Means are over the benchmarks that the config has, so that those of all models are over the same.
    """
    where = folder(run, name)
    names = [each.name for each in artifacts.files_in(where)]
    order = [task.benchmark.name for task in tasks_of(run)]
    names.sort(key=lambda n: (order.index(n) if n in order else len(order), n))
    found = {n: stored for n in names if (stored := stored_results(where / n)) is not None}
    if not found:
        return None
    results = combine({n: stored["results"] for n, stored in found.items()}, order)
    return results, {n: stored["seconds"] for n, stored in found.items()}


def tasks_of(run: Run) -> list[EvalTask]:
    """The benchmarks to evaluate on; see `find_tasks`."""
    config = run.config.evaluation
    return find_tasks(config.benchmarks, config.path, config.answer_type)


def problems_of(run: Run, task: EvalTask) -> list[Problem]:
    """The rows of a task, up to `evaluation.limit`; see `EvalTask.problems`."""
    multi_turn = run.config.tokenize.prompt == CHAT
    return task.problems(limit=run.config.evaluation.limit, fields=_fields(run), multi_turn=multi_turn)


def _fields(run: Run) -> FieldMap:
    return FieldMap(**run.config.pool.fields.to_dict())


def _prompt_builder(run: Run, task: EvalTask, tokenizer: Any, context: int) -> PromptBuilder:
    config, fields = run.config.evaluation, _fields(run)
    examples = [
        read_examples(
            task.benchmark,
            config.shots_path,
            config.shots if program in _forms(run, task) else 0,
            program=program,
            seed=run.config.seed,
            fields=fields,
        )
        for program in (False, True)
    ]
    template, room = run.config.tokenize.prompt, config.max_new_tokens
    return PromptBuilder(task.benchmark, template, tokenizer, context, room, config.shots, *examples)


def _forms(run: Run, task: EvalTask) -> tuple[bool, ...]:
    """How the rows of a task are asked, see `FORMS`; by evaluation.mode where the answer is a text."""
    return FORMS[run.config.evaluation.mode if task.benchmark.answered_by == "text" else "text"]


def _settings(run: Run, task: EvalTask, name: str) -> dict[str, Any]:
    """What decides the results of a model on a benchmark."""
    beyond = {
        "benchmark": task.benchmark.name,
        "answer_type": task.benchmark.answer_type,
        "answered_by": task.benchmark.answered_by,
        "evaluation.path": task.identity,
        **run.model_content("target"),
        **_weights_of(run, name),
    }
    if task.benchmark.reader is None and task.benchmark.embedded is None:
        beyond["benchmark.split"] = task.benchmark.split
    if path := run.config.evaluation.shots_path:
        beyond["evaluation.shots_path"] = EvalTask(task.benchmark, path).identity
    return deciding(run.config, "evaluation", beyond)


def _weights_of(run: Run, name: str) -> dict[str, str]:
    """Which weights a tuned target has, where they are there."""
    files = {} if name == UNTUNED else stored_digests(target_folder(run, name))
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return {"target.export_sha256": digest} if files else {}


def _model(run: Run, name: str) -> tuple[Decoder, Any]:
    dtype = weights.DTYPES[run.config.evaluation.dtype]
    if name == UNTUNED:
        return run.model("target").bound(dtype), run.tokenizer("target")
    return load_export(run, target_folder(run, name), dtype)


def _evaluate_one(
    run: Run, name: str, task: EvalTask, record: Record, model: Decoder, tokenizer: Any
) -> None:
    config, tokenize = run.config.evaluation, run.config.tokenize
    problems = problems_of(run, task)
    builder = _prompt_builder(run, task, tokenizer, model.config.max_positions)
    kept = KeptResponses(record.folder / "parts")
    progress = Progress(f"evaluating {name} on {task.benchmark.name}", len(problems), "answers")
    computed: dict[str, Any] = {
        "dtype": weights.DTYPES[config.dtype],
        "mesh": run.mesh,
        "attention": run.config.attention,
    }
    common = computed | {"template": tokenize.prompt}
    ask = functools.partial(
        respond,
        model,
        tokenizer,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        sampling=Sampling(config.temperature, config.top_k, config.top_p, run.config.seed),
        stop=[*config.stop, *builder.stops()],
        **common,
    )
    measure = functools.partial(
        reference_losses,
        model,
        tokenizer,
        boundary=tokenize.boundary,
        max_length=tokenize.max_length,
        **common,
    )
    how, confined = task.benchmark.answered_by, config.run_programs != "unconfined"
    under_way: dict[str, Any] = {"kept": kept, "progress": progress.update}
    attempts: dict[int, Response] = {}
    if how == "choices":
        likelihoods = functools.partial(choice_likelihoods, model, tokenizer, **computed)
        responses = answer_by_choices(builder, problems, likelihoods, **under_way)
    elif how == "tests":
        responses = answer_by_tests(builder, problems, ask, confined=confined, **under_way)
    else:
        responses, attempts = answer(
            builder, problems, ask, mode=config.mode, run_programs=config.run_programs, **under_way
        )
    losses = solution_losses(builder, problems, measure, tokenize.max_length)
    results: dict[str, Any] = {}
    if processes.is_writer():
        predictions = predict(
            task.benchmark, problems, responses, attempts, losses, grade="accuracy" in config.metrics
        )
        write_predictions(record.folder / PREDICTIONS, predictions)
        results = benchmark_results(
            predictions,
            domain=task.benchmark.domain,
            mode=config.mode if how == "text" else how,
            shots=config.shots,
            metrics=config.metrics,
            bertscore_model=config.bertscore_model,
        )
    progress.close(in_words(results))
    record.finish(results, files=[PREDICTIONS])
    kept.remove()
