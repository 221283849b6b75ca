"""A model on a benchmark: its answers, graded, and its losses of the reference solutions."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from s2l_jax.data.batching import loss_token_counts
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, tokenize
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.response_programs import ProgramRun
from s2l_jax.evaluation.execution.response_programs import run_programs as _run_programs
from s2l_jax.evaluation.finite import check_finite
from s2l_jax.evaluation.generation.kept_responses import KeptResponses
from s2l_jax.evaluation.generation.respond import check_vocabulary
from s2l_jax.evaluation.predictions import Prediction, Response, graded, needs_text
from s2l_jax.evaluation.tasks.benchmark import Benchmark, Problem
from s2l_jax.evaluation.tasks.prompting import PromptBuilder
from s2l_jax.models.decoder import Decoder
from s2l_jax.trajectories.sweep import tokenized_losses

# Whether a program is asked for, in the order of asking: in words; by a program; by a program, and in words
# where that fails (MAmmoTH's protocol).
FORMS: dict[str, tuple[bool, ...]] = {"text": (False,), "program": (True,), "hybrid": (True, False)}


def answer(
    builder: PromptBuilder,
    problems: Sequence[Problem],
    respond: Callable[..., list[str]],
    *,
    mode: str,
    run_programs: bool | str,
    kept: KeptResponses,
    progress: Callable[[int], None],
) -> tuple[list[Response], dict[int, Response]]:
    """The response to each problem, and the failed programs, by index, that some of them replace.

    Args:
      builder: makes the prompts.
      problems: what is asked.
      respond: gives the responses to prompts; takes `indices` and `progress` as `generate` does.
      mode: of `FORMS`.
      run_programs: whether responses that are programs are run; or "unconfined".
      kept: what was answered before a kill.
      progress: called with the number of problems settled so far.
    """
    responses: dict[int, Response] = {}
    attempts: dict[int, Response] = {}
    indices = list(range(len(problems)))
    for program in FORMS[mode]:
        prompts = builder.prompts([problems[i] for i in indices], program=program)

        def settled(done: int, before: int = len(problems) - len(indices)) -> None:
            progress(before + done)

        kind = "program" if program else "text"
        tokens = {i: prompt.tokens for i, prompt in zip(indices, prompts, strict=True)}
        texts = kept.responses(kind, tokens, respond, settled)
        confined = run_programs != "unconfined"
        runs: Sequence[ProgramRun | None] = [None] * len(texts)
        if run_programs:
            runs = kept.program_runs(kind, functools.partial(_run_programs, texts, confined=confined))
        for i, prompt, text, run in zip(indices, prompts, texts, runs, strict=True):
            responses[i] = Response(prompt.text, text, prompt.shots, run)
        if program and mode == "hybrid":
            indices = [i for i in indices if needs_text(responses[i])]
            attempts = {i: responses[i] for i in indices}
            if not indices:
                break
    return [responses[i] for i in range(len(problems))], attempts


def solution_losses(
    builder: PromptBuilder,
    problems: Sequence[Problem],
    measure: Callable[[Sequence[PoolRow]], list[float | None]],
    max_length: int,
) -> list[float | None]:
    """The loss of each worked solution after its zero-shot prompt; None for problems without one.

    Args:
      builder: makes the prompts.
      problems: what is asked.
      measure: gives the losses of rows, as `reference_losses` does.
      max_length: tokens that it keeps of each row.

    Raises:
      InputError: rows in the pool's schema, none of which has a loss.
    """
    worked = [i for i, problem in enumerate(problems) if problem.worked]
    measured = measure(builder.rows([problems[i] for i in worked])) if worked else []
    if worked and builder.benchmark.reader is None and all(loss is None for loss in measured):
        raise InputError(
            f"no held-out row has a response token within max_length={max_length} tokens: raise "
            "tokenize.max_length."
        )
    losses = dict(zip(worked, measured, strict=True))
    return [losses.get(i) for i in range(len(problems))]


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
    attention: str = "auto",
) -> list[float | None]:
    """The loss of each row's response, nats a token; None where max_length cuts all of it away.

    The arguments are those of `trajectories.sweep.example_losses`, `template` that which is `prompt` there;
    `attention` is as of `generate`.

    Raises:
      InputError: the tokeniser has more tokens than the model's embedding.
      DivergedError: a loss is not finite.
    """
    check_vocabulary(model, tokenizer)
    texts = [render(template, row, tokenizer) for row in rows]
    examples = TokenizedList(
        tokenize(tokenizer, texts, max_length=max_length, boundary=boundary, template=template)
    )
    has_loss = loss_token_counts(examples, np.arange(len(rows))) > 0
    if not has_loss.any():
        return [None] * len(rows)
    losses = tokenized_losses(
        model, examples, max_length=max_length, dtype=dtype, mesh=mesh, attention=attention
    )
    check_finite(losses, lambda number: f"row {rows[number].id}")
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
            likelihoods=response.likelihoods,
        )
        for i, (problem, response) in enumerate(zip(problems, responses, strict=True))
    ]
    return graded(predictions, benchmark.answer_type) if grade else predictions
