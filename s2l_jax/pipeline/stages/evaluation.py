"""Stage `evaluation`: what the untuned target and every tuned one answer, graded, benchmark by benchmark."""

import functools
from collections.abc import Sequence
from typing import Any

from etils import epath

from s2l_jax.config import deciding
from s2l_jax.console import Progress
from s2l_jax.data.pool import PoolRow
from s2l_jax.evaluation.evaluate import answer, predict, reference_losses, solution_losses
from s2l_jax.evaluation.generation.kept_responses import KeptResponses
from s2l_jax.evaluation.generation.respond import respond
from s2l_jax.evaluation.generation.sampling import Sampling
from s2l_jax.evaluation.predictions import PREDICTIONS, write_predictions
from s2l_jax.evaluation.summary import benchmark_results, combine, in_words
from s2l_jax.evaluation.tasks.eval_task import EvalTask, identity_of
from s2l_jax.models import weights
from s2l_jax.models.decoder import Decoder
from s2l_jax.parallel import processes
from s2l_jax.pipeline.plan import target_names
from s2l_jax.pipeline.stages.benchmarks import problems_of, prompt_builder, tasks_of
from s2l_jax.pipeline.stages.target import folder as target_folder
from s2l_jax.records import Record, stored_results
from s2l_jax.report.runs import UNTUNED
from s2l_jax.training.export import load_export
from s2l_jax.training.run import Run


def evaluate_all(run: Run) -> None:
    """Evaluate what is not evaluated yet; nothing when no benchmark has a path."""
    tasks = tasks_of(run)
    if not tasks:
        return
    settings = {task.benchmark.name: _settings(run, task) for task in tasks}
    for name in (UNTUNED, *target_names(run.config)):

        def record(task: EvalTask, name: str = name) -> Record:
            benchmark = task.benchmark.name
            return Record(
                folder(run, name) / benchmark, f"evaluation/{name}/{benchmark}", settings[benchmark]
            )

        # All settings are compared before the first answer; a record's time counts from when it is made.
        if waiting := [task for task in tasks if not record(task).done]:
            model, tokenizer = _model(run, name)
            for task in waiting:
                _evaluate_one(run, name, task, record(task), model, tokenizer)
            del model


def folder(run: Run, name: str) -> epath.Path:
    """Where a model's predictions are, in a folder for each benchmark."""
    return run.workdir / "evaluation" / name


def gather(run: Run, name: str) -> tuple[dict[str, Any], dict[str, float]] | None:
    """A model's results over its finished benchmarks, and the seconds of each; None without any."""
    where = folder(run, name)
    names = sorted(each.name for each in where.glob("*")) if where.exists() else []
    order = [task.benchmark.name for task in tasks_of(run)]
    names.sort(key=lambda n: (order.index(n) if n in order else len(order), n))
    found = {n: stored for n in names if (stored := stored_results(where / n)) is not None}
    if not found:
        return None
    results = combine({n: stored["results"] for n, stored in found.items()})
    return results, {n: stored["seconds"] for n, stored in found.items()}


def _settings(run: Run, task: EvalTask) -> dict[str, Any]:
    """What decides the results of a benchmark."""
    beyond = {
        "benchmark": task.benchmark.name,
        "answer_type": task.benchmark.answer_type,
        "evaluation.path": task.identity,
    }
    if path := run.config.evaluation.shots_path:
        beyond["evaluation.shots_path"] = identity_of(task.benchmark, path)
    return deciding(run.config, "evaluation", beyond)


def _model(run: Run, name: str) -> tuple[Decoder, Any]:
    dtype = weights.DTYPES[run.config.evaluation.dtype]
    if name == UNTUNED:
        return run.model("target").bound(dtype), run.tokenizer("target")
    return load_export(run, target_folder(run, name), dtype)


def _evaluate_one(
    run: Run, name: str, task: EvalTask, record: Record, model: Decoder, tokenizer: Any
) -> None:
    config = run.config.evaluation
    problems = problems_of(run, task)
    builder = prompt_builder(run, task, tokenizer, model.config.max_positions)
    kept = KeptResponses(record.folder / "parts")
    progress = Progress(f"evaluating {name} on {task.benchmark.name}", len(problems), "answers")
    responses, attempts = answer(
        builder,
        problems,
        functools.partial(_respond, run, model, tokenizer),
        mode=config.mode,
        run_programs=config.run_programs,
        kept=kept,
        progress=progress.update,
    )
    measure = functools.partial(_losses, run, model, tokenizer)
    losses = solution_losses(builder, problems, measure, run.config.tokenize.max_length)
    results: dict[str, Any] = {}
    if processes.is_writer():
        predictions = predict(
            task.benchmark, problems, responses, attempts, losses, grade="accuracy" in config.metrics
        )
        write_predictions(record.folder / PREDICTIONS, predictions)
        results = benchmark_results(
            predictions,
            domain=task.benchmark.domain,
            mode=config.mode,
            shots=config.shots,
            metrics=config.metrics,
            bertscore_model=config.bertscore_model,
        )
    progress.close(in_words(results))
    record.finish(results)
    kept.remove()


def _respond(
    run: Run, model: Decoder, tokenizer: Any, prompts: list[list[int]], *, stop: tuple[str, ...], **rest: Any
) -> list[str]:
    config = run.config.evaluation
    return respond(
        model,
        tokenizer,
        prompts,
        template=run.config.tokenize.prompt,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        dtype=weights.DTYPES[config.dtype],
        mesh=run.mesh,
        sampling=Sampling(config.temperature, config.top_k, config.top_p, run.config.seed),
        stop=[*config.stop, *stop],
        **rest,
    )


def _losses(run: Run, model: Decoder, tokenizer: Any, rows: Sequence[PoolRow]) -> list[float | None]:
    tokenize = run.config.tokenize
    return reference_losses(
        model,
        tokenizer,
        rows,
        template=tokenize.prompt,
        boundary=tokenize.boundary,
        max_length=tokenize.max_length,
        dtype=weights.DTYPES[run.config.evaluation.dtype],
        mesh=run.mesh,
    )
