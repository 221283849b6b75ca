"""A model's held-out loss and exact-match accuracy, per source and overall."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prompts import render
from s2l_jax.errors import InputError
from s2l_jax.evaluation.answers import exact_match, extract_answer
from s2l_jax.evaluation.generate import generate
from s2l_jax.models.decoder import Decoder
from s2l_jax.trajectories.sweep import example_losses


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One held-out row, answered."""

    id: int
    source: str
    prompt: str
    response: str
    answer: str  # extracted from the response
    reference: str
    correct: bool
    loss: float  # of the reference response, nats a token


def evaluate(
    model: Decoder,
    tokenizer: Any,
    rows: Sequence[PoolRow],
    *,
    prompt: str,
    boundary: str,
    max_length: int,
    max_new_tokens: int,
    batch_size: int,
    dtype: Any,
    mesh: Mesh,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Prediction]:
    """Answer every row greedily and measure the loss of its reference response.

    Raises:
      InputError: the tokeniser has more tokens than the model's embedding.
    """
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"the tokeniser has {len(tokenizer)} tokens, the model's vocabulary {model.config.vocab_size}: "
            "they do not belong together."
        )
    losses = example_losses(
        model,
        tokenizer,
        rows,
        prompt=prompt,
        max_length=max_length,
        boundary=boundary,
        dtype=dtype,
        mesh=mesh,
    )
    prompts = [render(prompt, row)[0] for row in rows]
    answers = generate(
        model,
        tokenizer(prompts)["input_ids"],
        max_new_tokens=max_new_tokens,
        end_token=tokenizer.eos_token_id,
        mesh=mesh,
        batch_size=batch_size,
        dtype=dtype,
        progress=progress,
    )
    responses = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [
        Prediction(
            id=row.id,
            source=row.source,
            prompt=text,
            response=response,
            answer=extract_answer(response),
            reference=row.output,
            correct=exact_match(response, row.output),
            loss=float(loss),
        )
        for row, text, response, loss in zip(rows, prompts, responses, losses, strict=True)
    ]


def summarise(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Accuracy and mean held-out loss over all rows and per source."""
    sources: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        sources.setdefault(prediction.source, []).append(prediction)
    return {
        "overall": _summary(predictions),
        "sources": {name: _summary(sources[name]) for name in sorted(sources)},
    }


def _summary(predictions: Sequence[Prediction]) -> dict[str, Any]:
    return {
        "accuracy": float(np.mean([p.correct for p in predictions])),
        "heldout_loss": float(np.mean([p.loss for p in predictions])),
        "num_examples": len(predictions),
    }
