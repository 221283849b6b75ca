"""Stage `evaluation`: what the untuned target and every tuned one answer, graded, benchmark by benchmark."""

import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.console import Progress
from s2l_jax.errors import InputError
from s2l_jax.evaluation.evaluate import reference_losses, respond
from s2l_jax.evaluation.generation.kept_responses import KeptResponses
from s2l_jax.evaluation.generation.sampling import Sampling
from s2l_jax.evaluation.metrics import text_metrics
from s2l_jax.evaluation.scoring import Prediction, Response, grade_responses, needs_text
from s2l_jax.evaluation.summary import combine, summarise
from s2l_jax.evaluation.tasks.prompting import Asking
from s2l_jax.evaluation.tasks.reading import Problem
from s2l_jax.models import weights
from s2l_jax.models.decoder import Decoder
from s2l_jax.parallel import processes
from s2l_jax.pipeline.stages.benchmarks import (
    Wanted,
    asking_of,
    forms,
    identity_of,
    metrics_of,
    problems_of,
    wanted,
)
from s2l_jax.pipeline.stages.pool import tokenizer_of
from s2l_jax.pipeline.stages.target import folder as target_folder
from s2l_jax.pipeline.stages.target import target_names
from s2l_jax.records import Record, stored_results
from s2l_jax.training.models import bound, load_export, open_model
from s2l_jax.training.run import Run, what_decides

UNTUNED = "untuned"


def evaluate_all(run: Run) -> None:
    """Evaluate what is not evaluated yet; nothing when no benchmark has a path."""
    benchmarks = wanted(run)
    if not benchmarks:
        return
    settings = {each.which.name: _settings(run, each) for each in benchmarks}
    for name in (UNTUNED, *target_names(run)):

        def record(each: Wanted, name: str = name) -> Record:
            benchmark = each.which.name
            return Record(
                folder(run, name) / benchmark, f"evaluation/{name}/{benchmark}", settings[benchmark]
            )

        # All settings are compared before the first answer; a record's time counts from when it is made.
        if waiting := [each for each in benchmarks if not record(each).done]:
            model, tokenizer = _model(run, name)
            for each in waiting:
                _evaluate_one(run, name, each, record(each), model, tokenizer)
            del model


def folder(run: Run, name: str) -> epath.Path:
    """Where a model's predictions are, in a folder for each benchmark."""
    return run.workdir / "evaluation" / name


def gather(run: Run, name: str) -> tuple[dict[str, Any], dict[str, float]] | None:
    """A model's results over its finished benchmarks, and the seconds of each; None without any."""
    where = folder(run, name)
    names = sorted(each.name for each in where.glob("*")) if where.exists() else []
    order = [each.which.name for each in wanted(run)]
    names.sort(key=lambda n: (order.index(n) if n in order else len(order), n))
    found = {n: stored for n in names if (stored := stored_results(where / n)) is not None}
    if not found:
        return None
    results = combine({n: stored["results"] for n, stored in found.items()})
    return results, {n: stored["seconds"] for n, stored in found.items()}


def _settings(run: Run, each: Wanted) -> dict[str, Any]:
    """What decides the results of a benchmark."""
    config = run.config
    options = config.evaluation.to_dict()
    for name in ("batch_size", "benchmarks"):
        del options[name]
    options |= {"path": each.path, "content": each.identity}
    if options["shots_path"]:
        options["shots_content"] = identity_of(each.which, options["shots_path"])
    return {
        "benchmark": each.which.name,
        "answer_type": each.which.answer_type,
        "evaluation": options,
        "tokenize": config.tokenize.to_dict(),
        "target": what_decides(config.target),
        "seed": config.seed,
    }


def _model(run: Run, name: str) -> tuple[Decoder, Any]:
    dtype = weights.DTYPES[run.config.evaluation.dtype]
    if name == UNTUNED:
        return bound(open_model(run, "target"), dtype), tokenizer_of(run.config.target)
    return load_export(run, target_folder(run, name), dtype)


def _evaluate_one(run: Run, name: str, each: Wanted, record: Record, model: Decoder, tokenizer: Any) -> None:
    config = run.config.evaluation
    problems = problems_of(run, each)
    asking = asking_of(run, each, tokenizer, model.config.max_positions)
    kept = KeptResponses(record.folder / "parts")
    progress = Progress(f"evaluating {name} on {each.which.name}", len(problems), "answers")
    first, attempts = _answers(run, model, asking, problems, kept, progress)
    losses = _losses(run, model, tokenizer, asking, problems)
    results: dict[str, Any] = {}
    if processes.is_writer():
        predictions = _predictions(
            each, problems, first, attempts, losses, graded="accuracy" in metrics_of(config)
        )
        lines = (json.dumps(prediction.as_json()) for prediction in predictions)
        artifacts.write_text(record.folder / "predictions.jsonl", "\n".join(lines) + "\n")
        results = _results(run, each, predictions)
    progress.close(_in_words(results))
    record.finish(results)
    kept.remove()


def _answers(
    run: Run,
    model: Decoder,
    asking: Asking,
    problems: Sequence[Problem],
    kept: KeptResponses,
    progress: Progress,
) -> tuple[list[Response], dict[int, Response]]:
    """The response to each problem, and the failed programs, by row, that some of them replace."""
    config = run.config.evaluation
    found: dict[int, Response] = {}
    attempts: dict[int, Response] = {}
    numbers = list(range(len(problems)))
    for program in forms(config):
        asked = asking.prompts([problems[n] for n in numbers], program=program)
        prompts = dict(zip(numbers, asked, strict=True))

        def ask(chunk: Sequence[int], done: Any, prompts: Any = prompts) -> list[str]:
            return respond(
                model,
                asking.tokenizer,
                [prompts[n].tokens for n in chunk],
                template=asking.template,
                max_new_tokens=config.max_new_tokens,
                batch_size=config.batch_size,
                dtype=weights.DTYPES[config.dtype],
                mesh=run.mesh,
                sampling=Sampling(config.temperature, config.top_k, config.top_p, run.config.seed),
                stop=[*(t.replace("\\n", "\n") for t in config.stop.split("|") if t), *asking.stops()],
                numbers=chunk,
                progress=done,
            )

        def shown(done: int, settled: int = len(problems) - len(numbers)) -> None:
            progress.update(settled + done)

        kind = "program" if program else "text"
        texts = kept.responses(kind, numbers, ask, shown)
        ran = kept.program_runs(kind, texts) if config.run_programs else [None] * len(texts)
        for n, text, one in zip(numbers, texts, ran, strict=True):
            found[n] = Response(prompts[n].text, text, prompts[n].shots, one)
        if program and config.mode == "hybrid":
            numbers = [n for n in numbers if needs_text(found[n])]
            attempts = {n: found[n] for n in numbers}
            if not numbers:
                break
    return [found[n] for n in range(len(problems))], attempts


def _losses(
    run: Run, model: Decoder, tokenizer: Any, asking: Asking, problems: Sequence[Problem]
) -> list[float | None]:
    """The loss of each worked solution after its zero-shot prompt; None for rows without one."""
    tokenize = run.config.tokenize
    worked = [n for n, problem in enumerate(problems) if problem.worked]
    losses: list[float | None] = [None] * len(problems)
    if not worked:
        return losses
    measured = reference_losses(
        model,
        tokenizer,
        asking.rows([problems[n] for n in worked]),
        template=tokenize.prompt,
        boundary=tokenize.boundary,
        max_length=tokenize.max_length,
        dtype=weights.DTYPES[run.config.evaluation.dtype],
        mesh=run.mesh,
    )
    if asking.which.reader is None and not any(loss is not None for loss in measured):
        raise InputError(
            f"no held-out row has a response token within max_length={tokenize.max_length} tokens: raise "
            "tokenize.max_length."
        )
    for n, loss in zip(worked, measured, strict=True):
        losses[n] = loss
    return losses


def _predictions(
    each: Wanted,
    problems: Sequence[Problem],
    responses: Sequence[Response],
    attempts: dict[int, Response],
    losses: Sequence[float | None],
    *,
    graded: bool,
) -> list[Prediction]:
    references = [problem.reference for problem in problems]
    verdicts = grade_responses(each.which.answer_type, responses, references) if graded else None
    predictions = []
    for n, (problem, response) in enumerate(zip(problems, responses, strict=True)):
        verdict = verdicts[n] if verdicts is not None else None
        predictions.append(
            Prediction(
                id=problem.row.id,
                source=problem.row.source,
                level=problem.level,
                type=problem.type,
                prompt=response.prompt,
                response=response.text,
                shots=response.shots,
                program=response.program,
                attempt=attempts.get(n),
                answer=verdict.answer if verdict else "",
                reference=problem.reference,
                expected=verdict.expected if verdict else "",
                correct=verdict.correct if verdict else None,
                reason=verdict.reason if verdict else "not graded",
                loss=losses[n],
            )
        )
    return predictions


def _results(run: Run, each: Wanted, predictions: Sequence[Prediction]) -> dict[str, Any]:
    config = run.config.evaluation
    results = {"domain": each.which.domain, "mode": config.mode, "shots": config.shots} | summarise(
        predictions
    )
    if short := sum(p.shots < config.shots for p in predictions):
        results["num_with_fewer_shots"] = short
    if names := [name for name in metrics_of(config) if name != "accuracy"]:
        results["metrics"] = text_metrics(
            names,
            [p.response for p in predictions],
            [p.reference for p in predictions],
            bertscore_model=config.bertscore_model,
        )
    return results


def _in_words(results: dict[str, Any]) -> str:
    said = []
    if "accuracy" in results:
        low, high = results["interval"]
        said.append(f"accuracy {results['accuracy']:.1%} ({low:.1%} to {high:.1%})")
    said += [f"{name} {found['score']:.1f}" for name, found in results.get("metrics", {}).items()]
    if "heldout_loss" in results:
        said.append(f"held-out loss {results['heldout_loss']:.3f}")
    return ", ".join(said)
