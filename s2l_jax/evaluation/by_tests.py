"""Answers that are programs, held to the tests of their row."""

import functools
from collections.abc import Callable, Sequence

from s2l_jax.evaluation.execution.tested_programs import run_tests
from s2l_jax.evaluation.generation.kept_responses import KeptResponses
from s2l_jax.evaluation.predictions import Response
from s2l_jax.evaluation.tasks.benchmark import Problem
from s2l_jax.evaluation.tasks.prompting import PromptBuilder


def answer_by_tests(
    builder: PromptBuilder,
    problems: Sequence[Problem],
    respond: Callable[..., list[str]],
    *,
    confined: bool,
    kept: KeptResponses,
    progress: Callable[[int], None],
) -> list[Response]:
    """The response to each problem, and what became of it under the problem's tests.

    The arguments are those of `evaluate.answer`; `confined` as for `run_tests`.
    """
    prompts = builder.prompts(problems)
    texts = kept.responses("text", {i: p.tokens for i, p in enumerate(prompts)}, respond, progress)
    tests = [problem.tests for problem in problems if problem.tests is not None]
    runs = kept.program_runs("text", functools.partial(run_tests, texts, tests, confined=confined))
    return [
        Response(prompt.text, text, prompt.shots, run)
        for prompt, text, run in zip(prompts, texts, runs, strict=True)
    ]
