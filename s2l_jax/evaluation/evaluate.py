"""A model's held-out loss and exact-match accuracy, per source and overall."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from s2l_jax.data.batching import loss_token_counts
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, end_tokens, tokenize, tokenize_prompts
from s2l_jax.errors import InputError
from s2l_jax.evaluation.answers import exact_match, extract_answer
from s2l_jax.evaluation.generate import Stops, generate
from s2l_jax.evaluation.sampling import GREEDY, Sampling
from s2l_jax.models.decoder import Decoder
from s2l_jax.trajectories.sweep import tokenized_losses


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
    loss: float | None  # of the reference response, nats a token; None if max_length cuts it away


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
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> list[Prediction]:
    """Answer every row and measure the loss of its reference response.

    Args:
      model: on `mesh`.
      tokenizer: a transformers tokeniser.
      rows: held-out rows.
      prompt: name of the template.
      boundary: see `data.tokens.tokenize`.
      max_length: tokens kept of each reference; prompts that are answered are not cut.
      max_new_tokens: longest answer.
      batch_size: prompts answered at a time.
      dtype: of matrix products.
      mesh: the device mesh.
      sampling: greedy, unless told otherwise.
      stop: texts that end an answer; what is kept ends before the first of them.
      progress: called with the number of rows answered so far.

    Raises:
      InputError: the tokeniser has more tokens than the model's embedding, a prompt is as long as
        the model's context, or max_length leaves no reference a token.
    """
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"the tokeniser has {len(tokenizer)} tokens, the model's vocabulary {model.config.vocab_size}: "
            "they do not belong together."
        )
    texts = [render(prompt, row, tokenizer) for row in rows]
    examples = TokenizedList(
        tokenize(tokenizer, texts, max_length=max_length, boundary=boundary, template=prompt)
    )
    has_loss = loss_token_counts(examples, np.arange(len(rows))) > 0
    if not has_loss.any():
        raise InputError(
            f"no held-out row has a response token within max_length={max_length} tokens: raise "
            "tokenize.max_length."
        )
    losses = tokenized_losses(model, examples, max_length=max_length, dtype=dtype, mesh=mesh)
    prompts = [text for text, _ in texts]
    answers = generate(
        model,
        tokenize_prompts(tokenizer, prompts, prompt),
        max_new_tokens=max_new_tokens,
        end_tokens=end_tokens(tokenizer, prompt),
        mesh=mesh,
        batch_size=batch_size,
        dtype=dtype,
        sampling=sampling,
        stops=_stops(tokenizer, stop) if stop else None,
        progress=progress,
    )
    responses = [_text(tokenizer, answer, stop) for answer in answers]
    return [
        Prediction(
            id=row.id,
            source=row.source,
            prompt=text,
            response=response,
            answer=extract_answer(response),
            reference=row.output,
            correct=exact_match(response, row.output),
            loss=float(loss) if has else None,
        )
        for row, text, response, loss, has in zip(rows, prompts, responses, losses, has_loss, strict=True)
    ]


def summarise(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Accuracy and mean held-out loss over all rows and per source.

    A row whose reference is cut away counts for accuracy alone; a source of such rows has no loss.
    """
    sources: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        sources.setdefault(prediction.source, []).append(prediction)
    return {
        "overall": _summary(predictions),
        "sources": {name: _summary(sources[name]) for name in sorted(sources)},
    }


def _stops(tokenizer: Any, stop: Sequence[str]) -> Stops:
    def found(answer: list[int]) -> bool:
        text = tokenizer.decode(answer)  # with special tokens, which a stop text may name
        return any(each in text for each in stop)

    return found


def _text(tokenizer: Any, answer: list[int], stop: Sequence[str]) -> str:
    """An answer's text up to the first stop text, without special tokens."""
    if not stop:
        return tokenizer.decode(answer, skip_special_tokens=True)
    text = tokenizer.decode(answer)
    text = text[: min([text.find(each) for each in stop if each in text], default=len(text))]
    for special in tokenizer.all_special_tokens:
        text = text.replace(special, "")
    return text


def _summary(predictions: Sequence[Prediction]) -> dict[str, Any]:
    losses = [p.loss for p in predictions if p.loss is not None]
    summary = {
        "accuracy": float(np.mean([p.correct for p in predictions])),
        "num_examples": len(predictions),
        "num_without_loss": len(predictions) - len(losses),
    }
    return summary | ({"heldout_loss": float(np.mean(losses))} if losses else {})
