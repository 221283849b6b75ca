"""A model on a benchmark: its answers, graded, and its losses of the reference solutions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from s2l_jax.data.batching import loss_token_counts
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, tokenize
from s2l_jax.errors import InputError
from s2l_jax.evaluation.generation.kept_responses import KeptResponses
from s2l_jax.evaluation.generation.respond import check_vocabulary, respond
from s2l_jax.evaluation.generation.sampling import GREEDY, Sampling
from s2l_jax.evaluation.predictions import Prediction, Response
from s2l_jax.evaluation.scoring import graded, needs_text
from s2l_jax.evaluation.tasks.benchmark import Benchmark, Problem
from s2l_jax.evaluation.tasks.prompting import PromptBuilder
from s2l_jax.models.decoder import Decoder
from s2l_jax.trajectories.sweep import tokenized_losses

# Whether a program is asked for, in the order of asking, by evaluation.mode.
FORMS: dict[str, tuple[bool, ...]] = {"text": (False,), "program": (True,), "hybrid": (True, False)}


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How a model answers.

    Args:
      mode: one of `FORMS`: in words; by a program; or in words where the program fails (MAmmoTH's protocol).
      run_programs: run responses that are programs.
      max_new_tokens: longest response.
      batch_size: prompts answered at a time.
      dtype: of matrix products.
      sampling: greedy, unless told otherwise.
      stop: texts that end a response, besides those of the prompts.
    """

    mode: str
    run_programs: bool
    max_new_tokens: int
    batch_size: int
    dtype: Any
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()


def answer(
    model: Decoder,
    builder: PromptBuilder,
    problems: Sequence[Problem],
    settings: AnswerSettings,
    *,
    mesh: Mesh,
    kept: KeptResponses,
    progress: Callable[[int], None],
) -> tuple[list[Response], dict[int, Response]]:
    """The response to each problem, and the failed programs, by index, that some of them replace.

    Args:
      model: on `mesh`.
      builder: makes the prompts.
      problems: what is asked.
      settings: how it is answered.
      mesh: the device mesh.
      kept: what was answered before a kill.
      progress: called with the number of problems settled so far.

    Raises:
      InputError: see `PromptBuilder.prompts` and `respond`.
    """
    responses: dict[int, Response] = {}
    attempts: dict[int, Response] = {}
    indices = list(range(len(problems)))
    for program in FORMS[settings.mode]:
        made = builder.prompts([problems[i] for i in indices], program=program)
        prompts = dict(zip(indices, made, strict=True))

        def ask(chunk: Sequence[int], done: Callable[[int], None], prompts: Any = prompts) -> list[str]:
            return respond(
                model,
                builder.tokenizer,
                [prompts[i].tokens for i in chunk],
                template=builder.template,
                max_new_tokens=settings.max_new_tokens,
                batch_size=settings.batch_size,
                dtype=settings.dtype,
                mesh=mesh,
                sampling=settings.sampling,
                stop=[*settings.stop, *builder.stops()],
                indices=chunk,
                progress=done,
            )

        def settled(done: int, before: int = len(problems) - len(indices)) -> None:
            progress(before + done)

        kind = "program" if program else "text"
        texts = kept.responses(kind, indices, ask, settled)
        runs = kept.program_runs(kind, texts) if settings.run_programs else [None] * len(texts)
        for i, text, run in zip(indices, texts, runs, strict=True):
            responses[i] = Response(prompts[i].text, text, prompts[i].shots, run)
        if program and settings.mode == "hybrid":
            indices = [i for i in indices if needs_text(responses[i])]
            attempts = {i: responses[i] for i in indices}
            if not indices:
                break
    return [responses[i] for i in range(len(problems))], attempts


def solution_losses(
    model: Decoder,
    builder: PromptBuilder,
    problems: Sequence[Problem],
    *,
    boundary: str,
    max_length: int,
    dtype: Any,
    mesh: Mesh,
) -> list[float | None]:
    """The loss of each worked solution after its zero-shot prompt; None for problems without one.

    Args:
      model: on `mesh`.
      builder: makes the prompts.
      problems: what is asked.
      boundary, max_length, dtype, mesh: see `reference_losses`.

    Raises:
      InputError: see there; or rows in the pool's schema, and max_length leaves none of them a loss.
    """
    worked = [i for i, problem in enumerate(problems) if problem.worked]
    losses: list[float | None] = [None] * len(problems)
    if not worked:
        return losses
    measured = reference_losses(
        model,
        builder.tokenizer,
        builder.rows([problems[i] for i in worked]),
        template=builder.template,
        boundary=boundary,
        max_length=max_length,
        dtype=dtype,
        mesh=mesh,
    )
    if builder.benchmark.reader is None and not any(loss is not None for loss in measured):
        raise InputError(
            f"no held-out row has a response token within max_length={max_length} tokens: raise "
            "tokenize.max_length."
        )
    for i, loss in zip(worked, measured, strict=True):
        losses[i] = loss
    return losses


def reference_losses(
    model: Decoder,
    tokenizer: Any,
    rows: Sequence[PoolRow],
    *,
    template: str,
    boundary: str,
    max_length: int,
    dtype: Any,
    mesh: Mesh,
) -> list[float | None]:
    """The loss of each row's response, nats a token; None where max_length cuts all of it away.

    Args:
      model: on `mesh`.
      tokenizer: a transformers tokeniser.
      rows: with the responses that are measured.
      template: name of the prompt template.
      boundary: see `data.tokens.tokenize`.
      max_length: tokens kept of each row.
      dtype: of matrix products.
      mesh: the device mesh.

    Raises:
      InputError: the tokeniser has more tokens than the model's embedding.
    """
    check_vocabulary(model, tokenizer)
    texts = [render(template, row, tokenizer) for row in rows]
    examples = TokenizedList(
        tokenize(tokenizer, texts, max_length=max_length, boundary=boundary, template=template)
    )
    has_loss = loss_token_counts(examples, np.arange(len(rows))) > 0
    if not has_loss.any():
        return [None] * len(rows)
    losses = tokenized_losses(model, examples, max_length=max_length, dtype=dtype, mesh=mesh)
    return [float(loss) if has else None for loss, has in zip(losses, has_loss, strict=True)]


def predict(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    responses: Sequence[Response],
    attempts: Mapping[int, Response],
    losses: Sequence[float | None],
    *,
    grade: bool,
) -> list[Prediction]:
    """One prediction for each problem, from what `answer` and `solution_losses` gave; graded if asked."""
    predictions = [
        Prediction(
            id=problem.row.id,
            source=problem.row.source,
            level=problem.level,
            type=problem.type,
            prompt=response.prompt,
            response=response.text,
            shots=response.shots,
            program=response.program,
            attempt=attempts.get(i),
            answer="",
            reference=problem.reference,
            expected="",
            correct=None,
            reason="not graded",
            loss=losses[i],
        )
        for i, (problem, response) in enumerate(zip(problems, responses, strict=True))
    ]
    return graded(predictions, benchmark.answer_type) if grade else predictions
