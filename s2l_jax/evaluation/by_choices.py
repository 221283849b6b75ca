"""Answers that are the likeliest of a row's choices."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from s2l_jax.data.pool_files import shortened
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.errors import InputError
from s2l_jax.evaluation.finite import check_finite
from s2l_jax.evaluation.generation.kept_responses import KeptResponses
from s2l_jax.evaluation.generation.respond import check_vocabulary
from s2l_jax.evaluation.predictions import Response
from s2l_jax.evaluation.tasks.benchmark import Problem
from s2l_jax.evaluation.tasks.prompting import PromptBuilder
from s2l_jax.models.decoder import Decoder
from s2l_jax.trajectories.sweep import tokenized_losses


def answer_by_choices(
    builder: PromptBuilder,
    problems: Sequence[Problem],
    measure: Callable[[Sequence[Sequence[int]], Sequence[Sequence[str]]], list[list[float]]],
    *,
    kept: KeptResponses,
    progress: Callable[[int], None],
) -> list[Response]:
    """The likeliest choice of each problem, the first of equal ones.

    Args:
      builder: makes the prompts.
      problems: what is asked, with choices.
      measure: gives the log-likelihoods of choices after prompts, as `choice_likelihoods` does.
      kept: what was measured before a kill.
      progress: called with the number of problems settled so far.
    """

    def respond(asked: Sequence[Sequence[int]], indices: Sequence[int], progress: Callable) -> list[str]:
        found = measure(asked, [problems[i].choices for i in indices])
        progress(len(asked))
        return [json.dumps(each) for each in found]

    prompts = builder.prompts(problems)
    texts = kept.responses("choices", {i: p.tokens for i, p in enumerate(prompts)}, respond, progress)
    responses = []
    for problem, prompt, text in zip(problems, prompts, texts, strict=True):
        likelihoods = tuple(json.loads(text))
        best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
        responses.append(Response(prompt.text, problem.choices[best], prompt.shots, likelihoods=likelihoods))
    return responses


def choice_likelihoods(
    model: Decoder,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[str]],
    *,
    dtype: Any,
    mesh: Mesh,
    attention: str = "auto",
) -> list[list[float]]:
    """The log-likelihood of each choice after its prompt: the sum over its tokens, in nats.

    The end of sequence is no part of it.

    Args:
      prompts: token ids.
      choices: texts, of each prompt some; as a response they follow it without a space.
      dtype: of matrix products and activations.
      mesh: where the model lies.
      attention: as of `generate`.

    Raises:
      InputError: a tokeniser of another model, or as `choice_examples`.
      DivergedError: a loss is not finite.
    """
    check_vocabulary(model, tokenizer)
    context = model.config.max_positions  # of all calls, so that their rows have the same few lengths
    examples = choice_examples(tokenizer, prompts, choices, context)
    losses = tokenized_losses(
        model, TokenizedList(examples), max_length=context, dtype=dtype, mesh=mesh, attention=attention
    )
    flat = [text for texts in choices for text in texts]
    check_finite(losses, lambda number: f"the choice {shortened(flat[number])}")
    counts = [len(example.tokens) - example.prompt_length for example in examples]
    sums = (-float(loss) * count for loss, count in zip(losses, counts, strict=True))
    return [[next(sums) for _ in texts] for texts in choices]


def choice_examples(
    tokenizer: Any, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[str]], context: int
) -> list[TokenizedExample]:
    """Each choice after its prompt, as `choice_likelihoods` measures it.

    Raises:
      InputError: a choice without a token, or one that ends beyond the model's context.
    """
    examples = []
    for prompt, texts in zip(prompts, choices, strict=True):
        for text, ids in zip(
            texts, tokenizer(list(texts), add_special_tokens=False)["input_ids"], strict=True
        ):
            if not ids:
                raise InputError(f"the choice {text!r} has no token: it cannot be likely or not.")
            tokens = np.asarray([*prompt, *ids], np.int32)
            if len(tokens) > context:
                raise InputError(
                    f"a prompt of {len(prompt)} tokens with its choice {shortened(text)} has {len(tokens)}, "
                    f"and the target's context is {context}: raise evaluation.max_new_tokens, so that such "
                    "prompts get fewer examples, or leave the row out."
                )
            examples.append(TokenizedExample(tokens, len(prompt), cut=False, boundary_merged=False))
    return examples
